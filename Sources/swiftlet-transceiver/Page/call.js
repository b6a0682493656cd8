// One call: everything that exists only while it lasts (connection, microphone, analysers), and what was noted of it.

import { Conversation } from "./conversation.js";
import { Ear, Listener, prepareEars } from "./listener.js";

const callsPath = "/v1/realtime/calls";

/// How long the server may take to answer an offer. It usually takes a few milliseconds.
const answerTimeoutMilliseconds = 10_000;

/// How long a broken connection may take to heal before the call is given up. Chromium reports "failed" after 15 s,
/// yet comes back by itself when the server's own checks reach it again; the server keeps a silent session a while.
const healingMilliseconds = 30_000;

/// How long the end of a call waits for the server to hear of it.
const goodbyeMilliseconds = 1_000;

/// Events kept for display. A long conversation has thousands, and the page must not grow with it.
export const eventsKept = 500;

// MARK: Signaling

const signaling = {
  /// Sends the offer as it is, without waiting for candidates: the server learns our address from our first check.
  async place(offer, authorization) {
    let response;
    try {
      response = await fetch(callsPath, {
        method: "POST",
        headers: { "Content-Type": "application/sdp", ...authorization },
        body: offer,
        signal: AbortSignal.timeout(answerTimeoutMilliseconds),
      });
    } catch (error) {
      throw new CallError(error.name === "TimeoutError"
        ? `The server did not answer within ${answerTimeoutMilliseconds / 1000} seconds. Try again, or look at its log.`
        : "The server could not be reached. Is it still running?", error);
    }
    if (!response.ok) throw Object.assign(new CallError(await refusalText(response)), { status: response.status });
    return { answer: await response.text(), location: response.headers.get("Location") };
  },

  /// `keepalive` lets the request outlive the page, so that closing the tab also ends the call at once.
  hangUp(location, authorization) {
    return fetch(`${location}/hangup`, { method: "POST", headers: authorization, keepalive: true });
  },
};

/// A failure that is worth showing to the person as it is.
class CallError extends Error {
  constructor(message, cause) {
    super(message, { cause });
  }
}

/// The API refuses with `{"error":{"message",…}}`; a proxy in between may answer with anything.
async function refusalText(response) {
  const body = await response.text();
  try {
    return `The server refused the call (${response.status}): ${JSON.parse(body).error.message}`;
  } catch {
    return `The server refused the call with status ${response.status}.`;
  }
}

// MARK: The call

export class Call {
  /// `changed` is called after anything that the page shows may have changed; `received` with each of the server's events;
  /// `ended` once, with an error or nothing.
  constructor({ processing, apiKey, speaker, changed, received, ended }) {
    this.startedAt = performance.now();
    this.endedAt = null;
    this.timeline = {};
    this.log = [];            // {at, direction: "in" or "out", event}
    this.logged = 0;          // how many there were in all
    this.conversation = new Conversation();
    this.location = null;     // of the call at the server, until it was told to end
    this.id = null;
    this.processing = processing;
    this.authorization = apiKey ? { Authorization: `Bearer ${apiKey}` } : {};
    this.speaker = speaker;
    this.changed = changed;
    this.received = received;
    this.ended = ended;
    this.isOver = false;
    // Made here, inside the click, because browsers only let a click start audio.
    this.audio = new AudioContext();
    this.earsAreReady = prepareEars(this.audio);
  }

  async start() {
    try {
      await this.openMicrophone();
      this.connect();
      await this.negotiate();
    } catch (error) {
      this.end(error);
    }
  }

  async openMicrophone() {
    if (!navigator.mediaDevices) {
      throw new CallError(`Browsers give the microphone only to secure pages, and ${window.origin} is not one. `
        + "Open this page by https, or as http://localhost on the machine where Swiftlet runs.");
    }
    const on = this.processing;
    const constraints = { echoCancellation: on, noiseSuppression: on, autoGainControl: on, channelCount: 1 };
    try {
      this.microphone = await navigator.mediaDevices.getUserMedia({ audio: constraints });
    } catch (error) {
      throw new CallError(microphoneErrorText(error), error);
    }
    if (this.isOver) return this.stopMicrophone();   // the person pressed Stop while the browser was asking
    this.mark("microphone");
    this.you = new Listener(this.audio, this.microphone);
    this.lendEar("yourEar", this.you, () => {});
  }

  stopMicrophone() {
    for (const track of this.microphone?.getTracks() ?? []) track.stop();
  }

  set isMuted(muted) {
    for (const track of this.microphone?.getTracks() ?? []) track.enabled = !muted;
  }

  async lendEar(name, listener, began) {
    if (!await this.earsAreReady || this.isOver) return;
    this[name] = new Ear(listener, { began, reported: () => this.notice() });
  }

  /// What the ears say about an answer that is under way.
  notice() {
    if (this.answerEar?.isSounding === false) this.conversation.answerFellSilent(this.answerEar.lastLoudAt);
  }

  /// Builds the connection: one audio track both ways and the channel on which the API's events travel.
  connect() {
    if (this.isOver) return;
    const peer = new RTCPeerConnection();
    this.peer = peer;
    for (const track of this.microphone.getTracks()) peer.addTrack(track, this.microphone);
    this.openEventChannel();
    peer.addEventListener("track", (event) => this.hear(event));
    peer.addEventListener("iceconnectionstatechange", () => {
      if (["connected", "completed"].includes(peer.iceConnectionState)) this.mark("ice");
    });
    peer.addEventListener("connectionstatechange", () => this.connectionChanged());
  }

  openEventChannel() {
    this.channel = this.peer.createDataChannel("oai-events");
    for (const change of ["open", "close"]) this.channel.addEventListener(change, () => this.changed());
    this.channel.addEventListener("message", ({ data }) => this.receiveEvent(data));
  }

  async negotiate() {
    if (this.isOver) return;
    const offer = await this.peer.createOffer();
    await this.peer.setLocalDescription(offer);
    this.mark("offer");
    const { answer, location } = await signaling.place(offer.sdp, this.authorization);
    this.location = location;
    this.id = location?.split("/").pop() ?? null;
    if (this.isOver) return void this.tellServer();   // stopped while the server was answering
    this.mark("answer");
    try {
      await this.peer.setRemoteDescription({ type: "answer", sdp: answer });
    } catch (error) {
      throw new CallError(`The browser did not accept the server's answer: ${error.message}`, error);
    }
    if (this.isOver) return;
    this.watchDTLS();
  }

  /// The DTLS transport exists only once a description was applied, and may already be past "connected" by then.
  watchDTLS() {
    const transport = this.peer.getSenders()[0]?.transport;
    if (!transport) return;
    const check = () => {
      if (transport.state === "connected") this.mark("dtls");
      if (transport.state === "closed") this.serverHungUp();
    };
    transport.addEventListener("statechange", check);
    check();
  }

  /// The other side's good-bye closes only its DTLS transport: the connection as a whole keeps saying "connected".
  serverHungUp() {
    if (this.isOver) return;
    this.location = null;   // there is nothing left to hang up
    this.wasEndedByServer = true;
    this.end();
  }

  hear({ track, streams }) {
    const stream = streams[0] ?? new MediaStream([track]);
    // Chromium feeds a remote stream to Web Audio only while some element plays it, so the speaker comes first.
    this.speaker.srcObject = stream;
    this.echo = new Listener(this.audio, stream);
    this.lendEar("answerEar", this.echo, (at) => this.conversation.answerSounded(at));
    track.addEventListener("unmute", () => this.mark("audio"));
  }

  connectionChanged() {
    const state = this.peer.connectionState;
    clearTimeout(this.healing);
    if (state === "connected") {
      this.mark("ice");    // Firefox may report the whole before the part
      this.mark("dtls");
    }
    if (state === "failed") this.connectionFailed();
    if (state === "closed") this.end();
    this.changed();
  }

  connectionFailed() {
    if ("dtls" in this.timeline) {
      const lost = new CallError("The connection was lost and did not come back. Press Start to call again.");
      this.healing = setTimeout(() => this.end(lost), healingMilliseconds);
    } else if ("ice" in this.timeline) {
      this.end(new CallError("The server was reached, but the encrypted connection (DTLS) to it was not set up. Its log says why."));
    } else {
      this.end(new CallError("No network path to the server: its UDP port cannot be reached. "
        + "Its operator should check --advertise, which is the address that browsers are told, and the firewall."));
    }
  }

  receiveEvent(text) {
    let event;
    try {
      event = JSON.parse(text);
    } catch {
      event = { type: "(not JSON)", text };
    }
    const at = this.note("in", event);
    this.conversation.receive(event, at, this.yourEar?.lastLoudAt);
    this.received(event);
    this.changed();
  }

  /// False when there is no channel to send it on.
  send(event) {
    if (this.channel?.readyState !== "open") return false;
    this.channel.send(JSON.stringify(event));
    this.note("out", event);
    this.changed();
    return true;
  }

  note(direction, event) {
    const at = performance.now();
    this.log.push({ at: at - this.startedAt, direction, event });
    this.logged += 1;
    if (this.log.length > eventsKept) this.log.shift();
    return at;
  }

  /// Notes when a step was reached first; later occurrences (a reconnect) do not count.
  mark(step) {
    if (step in this.timeline || this.isOver) return;
    this.timeline[step] = performance.now() - this.startedAt;
    this.changed();
  }

  async tellServer() {
    if (!this.location) return;
    const location = this.location;
    this.location = null;   // once is enough, whoever ends first
    try {
      await signaling.hangUp(location, this.authorization);
    } catch {
      // The server also notices by itself: closing the connection says good-bye on the media path.
    }
  }

  /// Closing says good-bye on the media path. Said before the request arrives, it would make the request one for a call that is over.
  async closeConnection() {
    const toldInTime = new Promise((resolve) => setTimeout(resolve, goodbyeMilliseconds));
    await Promise.race([this.goodbye, toldInTime]);
    this.peer?.close();
  }

  end(error) {
    if (this.isOver) return;
    this.isOver = true;
    this.endedAt = performance.now();
    clearTimeout(this.healing);
    this.goodbye = this.tellServer();
    this.closeConnection();
    this.stopMicrophone();
    this.speaker.srcObject = null;
    this.audio.close();
    this.ended(error);
  }
}

function microphoneErrorText(error) {
  switch (error.name) {
    case "NotAllowedError": return "The browser was not allowed to use the microphone. Allow it in the address bar, then press Start.";
    case "NotFoundError": return "No microphone was found. Connect one, then press Start again.";
    case "NotReadableError": return "The microphone is in use by another program, or the system refuses it. Free it, then press Start.";
    default: return `The microphone could not be opened: ${error.message}`;
  }
}
