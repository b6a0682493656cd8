// What was said, and when: a model of the conversation, made of the server's events and of what the ears heard. It draws nothing.
//
// `items` are the bubbles of the transcript. A `turn` is one time that the caller spoke, an `answer` one response; the moments
// in them are times of `performance.now()` at which this page learned of something, and null while it has not happened.

/// Kept; the oldest leave first.
const itemsKept = 300;
const turnsKept = 100;

/// How fast speech is, to guess which words an interruption cut off. The API tells milliseconds only.
const charactersASecond = 15;

/// An answer may be heard a little after the server has sent the last of it.
const lateSoundMilliseconds = 1000;

export class Conversation {
  constructor() {
    this.items = [];
    this.turns = [];
    this.answers = [];
    this.session = null;
    this.hasEchoed = false;   // something was heard that is no answer
    this.version = 0;         // grows with every change
  }

  // MARK: From the server

  /// `lastSpokeAt`: when the caller's ear last heard a voice.
  receive(event, at, lastSpokeAt = null) {
    this.version += 1;
    switch (event.type) {
      case "session.created":
      case "session.updated": this.sessionShown(event.session); break;
      case "input_audio_buffer.cleared": this.forgetHeardTurn(); break;
      case "input_audio_buffer.speech_started": this.speechStarted(event.item_id, at); break;
      case "input_audio_buffer.speech_stopped": this.speechStopped(at, lastSpokeAt); break;
      case "input_audio_buffer.committed": this.committed(event.item_id); break;
      case "conversation.item.added":
      case "conversation.item.created":
      case "conversation.item.done":
      case "conversation.item.retrieved": this.take(event.item, event.previous_item_id); break;
      case "conversation.item.deleted": this.items = this.items.filter(({ id }) => id !== event.item_id); break;
      case "conversation.item.truncated": this.truncated(event.item_id, event.audio_end_ms); break;
      case "conversation.item.input_audio_transcription.delta": this.hearText(event.item_id, event.delta); break;
      case "conversation.item.input_audio_transcription.completed": this.setText(event.item_id, event.transcript); break;
      case "conversation.item.input_audio_transcription.failed": this.setText(event.item_id, "(no transcript)"); break;
      case "response.created": this.responseCreated(event.response, at); break;
      case "response.output_item.added": this.outputAdded(event); break;
      case "response.output_text.delta":
      case "response.output_audio_transcript.delta": this.hearText(event.item_id, event.delta); break;
      case "response.output_text.done": this.setText(event.item_id, event.text); break;
      case "response.output_audio_transcript.done": this.setText(event.item_id, event.transcript); break;
      case "response.done": this.responseDone(event.response, at); break;
      case "output_audio_buffer.started": this.change(event.response_id, { beganAt: at }); break;
      case "output_audio_buffer.stopped": this.change(event.response_id, { endedAt: at }); break;
      case "output_audio_buffer.cleared": this.cleared(event.response_id, at); break;
      case "error": if (event.error?.code === "input_audio_buffer_commit_empty") this.forgetHeldTurn(); break;
    }
  }

  sessionShown(session) {
    this.session = session;
    if (session?.audio?.input?.turn_detection === null) this.forgetHeardTurn();
  }

  /// A turn that the server has begun to hear, and of which it will not tell the end.
  forgetHeardTurn() {
    const heard = this.turns.find(({ id, stoppedAt }) => id !== null && stoppedAt === null);
    if (!heard) return;
    this.turns = this.turns.filter((turn) => turn !== heard);
    this.items = this.items.filter(({ id }) => id !== heard.id);
  }

  speechStarted(id, at) {
    this.spokenOver(at);
    this.push(this.turns, newTurn(id, at));
    if (!this.item(id)) this.items.push(newItem(id, "user", "speaking"));
  }

  speechStopped(at, lastSpokeAt) {
    const turn = this.turns.at(-1);
    if (!turn || turn.stoppedAt !== null) return;
    turn.stoppedAt = at;
    turn.spokenUntil = lastSpokeAt !== null && lastSpokeAt > turn.startedAt - 1000 ? Math.min(lastSpokeAt, at) : null;
  }

  committed(id) {
    const turn = this.turns.findLast((turn) => turn.id === null);
    if (turn) {
      turn.id = id;
      const held = this.items.find((item) => item.id === null);
      if (held) held.id = id;
    }
    const item = this.item(id);
    if (item) item.state = "done";
  }

  /// Takes an item as the server shows it. Its place is behind the item before it, if that is known.
  take(shown, previous) {
    let item = this.item(shown.id);
    if (!item) {
      item = newItem(shown.id, shown.role ?? shown.type, "done");
      const index = this.items.findIndex(({ id }) => id === previous);
      this.items.splice(index < 0 ? this.items.length : index + 1, 0, item);
      if (this.items.length > itemsKept) this.items.shift();
    }
    item.isSpoken ||= (shown.content ?? []).some(({ type }) => type === "input_audio");
    item.text = textOf(shown) || item.text;
    item.state = { in_progress: "speaking", incomplete: "incomplete" }[shown.status] ?? "done";
  }

  truncated(id, milliseconds) {
    const item = this.item(id);
    if (item) item.playedMilliseconds = milliseconds;
  }

  hearText(id, delta) {
    const item = this.item(id);
    if (item) item.text += delta ?? "";
  }

  setText(id, text) {
    const item = this.item(id);
    if (item && text) item.text = text;
  }

  responseCreated(response, at) {
    const answer = {
      id: response?.id, item: null, turn: null, status: "in_progress",
      createdAt: at, beganAt: null, heardAt: null, endedAt: null, spokenOverAt: null, interruptedAt: null, silentAt: null, wasCut: false,
    };
    const turn = this.turns.at(-1);
    if (turn && turn.stoppedAt !== null && !turn.answer) {
      turn.answer = answer;
      answer.turn = turn;
    }
    this.push(this.answers, answer);
  }

  outputAdded({ response_id, item }) {
    if (item?.role === "assistant") this.change(response_id, { item: item.id });
    this.take(item ?? {}, this.items.at(-1)?.id);
  }

  responseDone(response, at) {
    const answer = this.answer(response?.id);
    if (!answer) return;
    answer.status = response.status;
    if (answer.beganAt === null && response.status !== "completed") answer.endedAt = at;
    if (response.status !== "failed") return;
    const notice = newItem(`notice of ${response.id}`, "notice", "done");
    notice.text = response.status_details?.error?.message ?? "The response failed.";
    this.items.push(notice);
  }

  cleared(id, at) {
    const answer = this.answer(id);
    if (!answer) return;
    answer.endedAt = at;
    answer.wasCut = true;
    answer.interruptedAt = answer.spokenOverAt;
  }

  // MARK: From the caller's hands and ears

  /// Push-to-talk: the button is down.
  pressed(at) {
    this.version += 1;
    this.forgetHeldTurn();
    this.spokenOver(at);
    this.push(this.turns, newTurn(null, at));
    this.items.push(newItem(null, "user", "speaking"));
  }

  released(at, lastSpokeAt = null) {
    this.version += 1;
    this.speechStopped(at, lastSpokeAt);
  }

  /// A held turn of which the server made nothing.
  forgetHeldTurn() {
    this.turns = this.turns.filter(({ id }) => id !== null);
    this.items = this.items.filter(({ id }) => id !== null);
  }

  answerSounded(at) {
    this.version += 1;
    const answer = this.answers.findLast(({ createdAt }) => createdAt <= at);
    if (!answer) this.hasEchoed ||= this.turns.length === 0;
    else if (answer.heardAt === null && !(answer.endedAt < at - lateSoundMilliseconds && answer.endedAt !== null)) answer.heardAt = at;
  }

  answerFellSilent(lastLoudAt) {
    const answer = this.answers.at(-1)?.interruptedAt ? this.answers.at(-1) : this.answers.at(-2);
    if (!answer || answer.interruptedAt === null || answer.silentAt !== null || lastLoudAt === null) return;
    answer.silentAt = Math.max(lastLoudAt, answer.interruptedAt);
    this.version += 1;
  }

  /// The caller speaks while an answer is being played; whether that ends it, `cleared` will tell.
  spokenOver(at) {
    if (this.playing) this.playing.spokenOverAt = at;
  }

  // MARK: What it amounts to

  get playing() {
    return this.answers.findLast(({ beganAt, endedAt }) => beganAt !== null && endedAt === null) ?? null;
  }

  get open() {
    return this.answers.findLast(({ status }) => status === "in_progress") ?? null;
  }

  /// "listening" to the caller, "waiting" for an answer, "answering", or "ready".
  get state() {
    const turn = this.turns.at(-1);
    if (turn && turn.stoppedAt === null) return "listening";
    if (this.playing) return "answering";
    return this.open ? "waiting" : "ready";
  }

  /// Every moment of every turn in the order of time, as {kind, at}.
  get marks() {
    const marks = [];
    const add = (kind, at) => at !== null && marks.push({ kind, at });
    for (const turn of this.turns) {
      add("speech-start", turn.startedAt);
      add("speech-stop", turn.stoppedAt);
    }
    for (const answer of this.answers) {
      add("answer-start", answer.heardAt ?? answer.beganAt);
      add("barge-in", answer.interruptedAt);
      add("answer-end", answer.beganAt === null ? null : answer.endedAt);
    }
    return marks.sort((a, b) => a.at - b.at);
  }

  /// Milliseconds of every turn that was answered, by what they measure.
  get latencies() {
    const all = { started: [], heard: [], total: [], silence: [] };
    for (const answer of this.answers) {
      const { stoppedAt = null, spokenUntil = null } = answer.turn ?? {};
      const add = (list, from, to) => from !== null && to !== null && list.push(Math.max(0, to - from));
      add(all.started, stoppedAt, answer.beganAt);
      add(all.heard, stoppedAt, answer.heardAt);
      add(all.total, spokenUntil, answer.heardAt);
      add(all.silence, answer.interruptedAt, answer.silentAt);
    }
    return all;
  }

  item(id) { return this.items.find((item) => item.id === id); }
  answer(id) { return this.answers.findLast((answer) => answer.id === id); }
  change(id, fields) { Object.assign(this.answer(id) ?? {}, fields); }

  push(list, value) {
    list.push(value);
    if (list.length > turnsKept) list.shift();
  }
}

function newTurn(id, at) {
  return { id, startedAt: at, stoppedAt: null, spokenUntil: null, answer: null };
}

/// `state` is "speaking", "done" or "incomplete".
function newItem(id, role, state) {
  return { id, role, state, text: "", isSpoken: state === "speaking" && role === "user", playedMilliseconds: null };
}

function textOf({ type, content, name, arguments: given, output }) {
  if (type === "function_call") return `${name}(${given})`;
  if (type === "function_call_output") return output ?? "";
  return (content ?? []).map(({ text, transcript }) => text ?? transcript ?? "").join(" ").trim();
}

/// What was heard of an item's text, and what was not.
export function cutText({ text, playedMilliseconds }) {
  if (playedMilliseconds === null) return { heard: text, lost: "" };
  let end = Math.round(playedMilliseconds / 1000 * charactersASecond);
  if (end >= text.length) return { heard: text, lost: "" };
  end = text.lastIndexOf(" ", end) + 1;   // between words
  return { heard: text.slice(0, end), lost: text.slice(end) };
}
