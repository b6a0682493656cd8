// The page that speaks to a Swiftlet: a console of one conversation at a time.
//
// Read in this order: `call.js` owns everything that exists only during a call; `conversation.js` is what was said and when;
// `listener.js` and `ear.js` hear; `transcript.js`, `lanes.js`, `numbers.js` and `log.js` draw; `settings.js` and `talk.js` are
// what the person can change and do. This file joins them. `window.swiftlet` hands the same facts and actions to tests and to
// a curious console; nothing on the page depends on it.

import { Call } from "./call.js";
import { find, setText } from "./elements.js";
import { drawLanes, drawTurns } from "./lanes.js";
import { silenceDecibels } from "./listener.js";
import { buildLog, drawLog } from "./log.js";
import { buildSetup, drawLatencies, drawNetwork, drawSetup, readNetwork } from "./numbers.js";
import { buildSettings, isPushToTalk, takeSession, turnDetection } from "./settings.js";
import { buildTalk, cancelID, holdSpace, settleMicrophone } from "./talk.js";
import { drawTranscript } from "./transcript.js";

const networkIntervalMilliseconds = 1000;
const lanesIntervalMilliseconds = 30;

let call = null;
let lastError = null;
let lastCall = null;      // what the page still shows after the call
let network = null;

function toggle() {
  if (call) call.end();
  else startCall();
}

function startCall() {
  if (call) return;
  lastError = null;
  network = null;
  showServerError(null);
  call = new Call({
    processing: find("processing").checked, apiKey: find("api-key").value.trim(), speaker: find("speaker"),
    changed: draw, received: takeEvent, ended: callEnded,
  });
  lastCall = call;
  call.start();
  draw();
  requestAnimationFrame(drawFrame);
  watchNetwork(call);
}

function callEnded(error) {
  call = null;
  lastError = error ?? null;
  draw();
}

function takeEvent(event) {
  if (event.type === "error" && event.error?.event_id !== cancelID) showServerError(event.error);
  const update = takeSession(event);
  if (update) call?.send(update);
  if (call && event.type.startsWith("session.")) settleMicrophone(call);
}

async function watchNetwork(watched) {
  while (call === watched) {
    network = await readNetwork(watched.peer) ?? network;
    drawNetwork(network);
    await new Promise((resolve) => setTimeout(resolve, networkIntervalMilliseconds));
  }
}

// MARK: Drawing

function phase() {
  if (!call) return "idle";
  return "dtls" in call.timeline ? "talking" : "connecting";
}

function draw() {
  const now = phase();
  document.body.dataset.phase = now;
  document.body.dataset.turn = now === "talking" ? call.conversation.state : "none";
  setText("call-label", now === "idle" ? "Start" : "Stop");
  setText("status", statusText(now));
  find("error").hidden = !lastError;
  setText("error", lastError?.message ?? "");
  // Asked for only where the server has asked.
  if (lastError?.status === 401) find("access").hidden = false;
  find("processing").disabled = now !== "idle";
  setText("call-id", lastCall?.id ?? "none");
  setText("channel", lastCall?.channel?.readyState ?? "closed");
  const canSend = call?.channel?.readyState === "open";
  for (const id of ["talk", "text", "send", "answer-now"]) find(id).disabled = !canSend;
  find("answer-stop").disabled = !canSend || !(call.conversation.open || call.conversation.playing);
  drawSetup(lastCall?.timeline ?? {});
  drawConversation();
}

let drawnConversation = null;
let drawnVersion = -1;

/// All that follows from events. It is drawn soon rather than at once, because events come in bursts.
function drawConversation() {
  drawConversation.timer ??= setTimeout(() => {
    drawConversation.timer = null;
    const { conversation = null } = lastCall ?? {};
    drawLog(lastCall);
    setText("turn-state", turnText());
    if (conversation === drawnConversation && conversation?.version === drawnVersion) return;
    [drawnConversation, drawnVersion] = [conversation, conversation?.version];
    drawTranscript(conversation?.items ?? []);
    drawTurns(conversation);
    drawLatencies(conversation?.latencies);
  }, 30);
}

function statusText(now) {
  if (now === "talking") {
    const isBroken = ["disconnected", "failed"].includes(call.peer.connectionState);
    return isBroken ? "The network is gone. Waiting for it to come back." : "Connected.";
  }
  if (now === "connecting") return call.microphone ? "Connecting." : "Waiting for the microphone.";
  if (lastError) return "The call ended with an error.";
  if (lastCall?.wasEndedByServer) return "The server ended the call.";
  return lastCall ? "The call has ended." : "Ready. Press Start, or the space bar.";
}

/// What the person can do now. It changes with every turn, so it is no live region: nobody wants it read into the conversation.
function turnText() {
  if (phase() !== "talking") return "";
  const { conversation } = call;
  switch (conversation.state) {
    case "listening": return "Listening to you.";
    case "waiting": return "Waiting for the answer.";
    case "answering": return isPushToTalk() ? "Answering. Hold to interrupt." : "Answering. Speak to interrupt.";
  }
  if (isPushToTalk()) return "Hold the button, or the space bar, and speak.";
  // An echo makes no answers: what was heard was asked for by nobody.
  if (conversation.hasEchoed) return "Speak: you will hear yourself.";
  return "Speak. When you pause, the answer comes.";
}

/// In the server's own words.
function showServerError(error) {
  find("server-error").hidden = !error;
  if (!error) return;
  setText("server-error-text", error.message ?? "The server sent an error without a message.");
  setText("server-error-code", [error.code ?? error.type, error.param].filter(Boolean).join(" · "));
}

/// Runs once a frame during a call. A meter's spoken value changes only twice a second.
function drawFrame(time = 0) {
  const speakValues = Math.floor(time / 500) !== Math.floor((drawFrame.last ?? 0) / 500);
  drawFrame.last = time;
  drawMeter(find("meter-you"), call?.you, speakValues);
  drawMeter(find("meter-echo"), call?.echo, speakValues);
  if (speakValues) {
    const tone = call?.echo?.dominantFrequency;
    setText("tone", tone ? `${Math.round(tone)} Hz` : "none");
  }
  if (!call || time - (drawFrame.lanesAt ?? 0) > lanesIntervalMilliseconds) {
    drawFrame.lanesAt = time;
    drawLanes(lastCall, call ? performance.now() : lastCall?.endedAt ?? 0);
  }
  if (call) {
    drawConversation();   // ears notice things between events
    requestAnimationFrame(drawFrame);
  }
}

function drawMeter(meter, listener, speakValue) {
  const decibels = Math.max(silenceDecibels, Math.min(0, listener?.decibels ?? silenceDecibels));
  meter.style.setProperty("--level", 1 - decibels / silenceDecibels);
  if (speakValue || !listener) meter.setAttribute("aria-valuenow", Math.round(decibels));
}

// MARK: Tests look in here

/// Times of the page as milliseconds since the click.
const sinceClick = (at) => (at === null ? null : at - lastCall.startedAt);

window.swiftlet = {
  /// "idle", "connecting" or "talking".
  get state() { return phase(); },
  /// "ready", "listening", "waiting" or "answering"; "none" without a call.
  get turn() { return call?.conversation.state ?? "none"; },
  /// Milliseconds since the click at which each step was reached, of this call or the one before.
  get timeline() { return { ...lastCall?.timeline }; },
  /// When the button was clicked, by `performance.now()`.
  get startedAt() { return lastCall?.startedAt ?? null; },
  get error() { return lastError?.message ?? null; },
  get callID() { return lastCall?.id ?? null; },
  /// Root mean square in dBFS; null without a call.
  get levels() { return { you: call?.you?.decibels ?? null, echo: call?.echo?.decibels ?? null }; },
  get channelState() { return lastCall?.channel?.readyState ?? "closed"; },
  /// What the server sent.
  get events() { return (lastCall?.log ?? []).filter(({ direction }) => direction === "in").map(({ event }) => event); },
  /// The same and what was sent to it, as {at, direction, event}.
  get log() { return lastCall?.log ?? []; },
  get items() { return lastCall?.conversation.items ?? []; },
  /// The moments of all turns as {kind, at}.
  get marks() { return (lastCall?.conversation.marks ?? []).map(({ kind, at }) => ({ kind, at: sinceClick(at) })); },
  get latencies() { return lastCall?.conversation.latencies ?? null; },
  get network() { return network; },
  get turnDetection() { return turnDetection(); },
  get peer() { return call?.peer ?? null; },
  /// Hertz of the strongest tone in the received audio, or null in silence.
  peakFrequency() { return call?.echo?.dominantFrequency ?? null; },
  /// The same of the microphone.
  microphoneFrequency() { return call?.you?.dominantFrequency ?? null; },
  start: startCall,
  /// Ends the call; fulfilled once the server was told.
  async hangup() {
    call?.end();
    await lastCall?.goodbye;
  },
  send(event) { call?.send(event); },
};

// MARK: Start

buildSetup();
buildLog();
buildSettings((update) => {
  call?.send(update);
  draw();
});
buildTalk(() => call);
draw();
drawFrame();
find("call").addEventListener("click", toggle);
find("server-error-dismiss").addEventListener("click", () => showServerError(null));
window.addEventListener("resize", () => { if (!call) drawFrame(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (!call) drawFrame(); });
window.addEventListener("pagehide", () => call?.end());
for (const kind of ["keydown", "keyup"]) {
  document.addEventListener(kind, (event) => {
    // The space bar works anywhere, but never twice: on a focused control it already means that control.
    if (event.code !== "Space" || event.target.closest("button, input, select, summary, a")) return;
    if (holdSpace(event, call)) return;
    if (kind === "keyup" || event.repeat) return;
    event.preventDefault();
    toggle();
  });
}
