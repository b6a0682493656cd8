// The page that speaks to a Swiftlet. One call at a time goes from the microphone to the server and back to the loudspeaker.
//
// Read in this order: `Call` owns everything that exists only during a call (connection, microphone, analysers);
// `signaling` is the HTTP it speaks; the functions below draw what the call says. `window.swiftlet` hands the same
// facts and the same two actions to tests and to a curious console; nothing on the page depends on it.

const callsPath = "/v1/realtime/calls";

/// The steps of setting up a call, in the order in which they normally happen.
const timelineSteps = [
  ["microphone", "Microphone open"],
  ["offer", "Offer created"],
  ["answer", "Answer received"],
  ["ice", "ICE connected"],
  ["dtls", "DTLS connected"],
  ["audio", "First audio packet"],
];

/// What a meter shows at its lower end; a quiet room is near -60 dBFS.
const silenceDecibels = -60;

/// How long the server may take to answer an offer. It usually takes a few milliseconds.
const answerTimeoutMilliseconds = 10_000;

/// How long a broken connection may take to heal before the call is given up. Chromium reports "failed" after 15 s,
/// yet comes back by itself when the server's own checks reach it again; the server keeps a silent session a while.
const healingMilliseconds = 30_000;

/// Events kept for display. A long conversation has thousands, and the page must not grow with it.
const eventsKept = 200;

// MARK: Signaling

const signaling = {
  /// Sends the offer as it is, without waiting for candidates: the server learns our address from our first check.
  async place(offer) {
    let response;
    try {
      response = await fetch(callsPath, {
        method: "POST",
        headers: { "Content-Type": "application/sdp" },
        body: offer,
        signal: AbortSignal.timeout(answerTimeoutMilliseconds),
      });
    } catch (error) {
      throw new CallError(error.name === "TimeoutError"
        ? `The server did not answer within ${answerTimeoutMilliseconds / 1000} seconds. Try again, or look at its log.`
        : "The server could not be reached. Is it still running?", error);
    }
    if (!response.ok) throw new CallError(await refusalText(response));
    return { answer: await response.text(), location: response.headers.get("Location") };
  },

  /// `keepalive` lets the request outlive the page, so that closing the tab also ends the call at once.
  hangUp(location) {
    return fetch(`${location}/hangup`, { method: "POST", keepalive: true });
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

class Call {
  /// `changed` is called after anything that the page shows may have changed; `ended` once, with an error or nothing.
  constructor({ processing, speaker, changed, ended }) {
    this.startedAt = performance.now();
    this.timeline = {};
    this.events = [];
    this.location = null;     // of the call at the server, until it was told to end
    this.id = null;
    this.processing = processing;
    this.speaker = speaker;
    this.changed = changed;
    this.ended = ended;
    this.isOver = false;
    // Made here, inside the click, because browsers only let a click start audio.
    this.audio = new AudioContext();
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
  }

  stopMicrophone() {
    for (const track of this.microphone?.getTracks() ?? []) track.stop();
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
    const { answer, location } = await signaling.place(offer.sdp);
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
    this.location = null;   // there is nothing left to hang up
    this.wasEndedByServer = true;
    this.end();
  }

  hear({ track, streams }) {
    const stream = streams[0] ?? new MediaStream([track]);
    // Chromium feeds a remote stream to Web Audio only while some element plays it, so the speaker comes first.
    this.speaker.srcObject = stream;
    this.echo = new Listener(this.audio, stream);
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
    this.events.push(event);
    if (this.events.length > eventsKept) this.events.shift();
    this.changed();
  }

  send(event) {
    this.channel.send(JSON.stringify(event));
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
      await signaling.hangUp(location);
    } catch {
      // The server also notices by itself: closing the connection says good-bye on the media path.
    }
  }

  end(error) {
    if (this.isOver) return;
    this.isOver = true;
    clearTimeout(this.healing);
    this.goodbye = this.tellServer();
    this.peer?.close();
    this.stopMicrophone();
    this.speaker.srcObject = null;
    this.audio.close();
    this.ended(error);
  }
}

function microphoneErrorText(error) {
  switch (error.name) {
    case "NotAllowedError": return "The browser was not allowed to use the microphone. Allow it in the address bar, then press Start again.";
    case "NotFoundError": return "No microphone was found. Connect one, then press Start again.";
    case "NotReadableError": return "The microphone is in use by another program, or the system refuses it. Free it, then press Start again.";
    default: return `The microphone could not be opened: ${error.message}`;
  }
}

// MARK: Listening

/// Level and strongest frequency of one stream.
class Listener {
  constructor(audio, stream) {
    this.analyser = audio.createAnalyser();
    this.analyser.fftSize = 8192;             // 6 Hz a bin at 48 kHz
    this.analyser.smoothingTimeConstant = 0.3;
    this.source = audio.createMediaStreamSource(stream);   // held: an unreferenced source may be collected and fall silent
    this.source.connect(this.analyser);
    this.samples = new Float32Array(2048);    // 43 ms: quick enough for a meter
    this.spectrum = new Float32Array(this.analyser.frequencyBinCount);
  }

  /// Root mean square of the last samples in dBFS.
  get decibels() {
    this.analyser.getFloatTimeDomainData(this.samples);
    let sum = 0;
    for (const sample of this.samples) sum += sample * sample;
    return 10 * Math.log10(sum / this.samples.length + 1e-12);
  }

  /// Hertz of the strongest partial, or null in silence.
  get dominantFrequency() {
    if (this.decibels < silenceDecibels) return null;
    this.analyser.getFloatFrequencyData(this.spectrum);
    let peak = 1;
    for (let bin = 2; bin < this.spectrum.length - 1; bin++) {
      if (this.spectrum[bin] > this.spectrum[peak]) peak = bin;
    }
    return (peak + peakOffset(this.spectrum, peak)) * this.analyser.context.sampleRate / this.analyser.fftSize;
  }
}

/// Where between bins the true peak lies: the top of the parabola through the bin and its neighbours, in bins.
function peakOffset(spectrum, peak) {
  const [left, middle, right] = [spectrum[peak - 1], spectrum[peak], spectrum[peak + 1]];
  const curvature = left - 2 * middle + right;
  return Number.isFinite(curvature) && curvature !== 0 ? (left - right) / (2 * curvature) : 0;
}

// MARK: The page

const find = (id) => document.getElementById(id);

let call = null;
let lastError = null;
let lastCall = null;      // what the timeline and the details still show after the call

function toggle() {
  if (call) call.end();
  else startCall();
}

function startCall() {
  if (call) return;
  lastError = null;
  call = new Call({ processing: find("processing").checked, speaker: find("speaker"), changed: draw, ended: callEnded });
  lastCall = call;
  call.start();
  draw();
  requestAnimationFrame(drawMeters);
}

function callEnded(error) {
  call = null;
  lastError = error ?? null;
  draw();
}

function phase() {
  if (!call) return "idle";
  return "dtls" in call.timeline ? "talking" : "connecting";
}

function draw() {
  const now = phase();
  document.body.dataset.phase = now;
  setText("call-label", now === "idle" ? "Start" : "Stop");
  setText("status", statusText(now));
  find("error").hidden = !lastError;
  setText("error", lastError?.message ?? "");
  find("processing").disabled = now !== "idle";
  setText("call-id", lastCall?.id ?? "none");
  setText("channel", lastCall?.channel?.readyState ?? "closed");
  drawTimeline(lastCall?.timeline ?? {});
  drawEvents(lastCall?.events ?? []);
}

function statusText(now) {
  if (now === "talking") {
    if (["disconnected", "failed"].includes(call.peer.connectionState)) return "The network is gone. Waiting for it to come back.";
    return "audio" in call.timeline ? "Connected. Speak: you will hear yourself." : "Connected. Waiting for the first sound.";
  }
  if (now === "connecting") return call.microphone ? "Connecting." : "Waiting for the microphone.";
  if (lastError) return "The call ended with an error.";
  if (lastCall?.wasEndedByServer) return "The server ended the call.";
  return lastCall ? "The call has ended." : "Ready. Press Start, or the space bar.";
}

/// Screen readers announce a live region on every write, so only real changes are written.
function setText(id, text) {
  const element = find(id);
  if (element.textContent !== text) element.textContent = text;
}

function buildTimeline() {
  for (const [step, label] of timelineSteps) {
    const row = document.createElement("li");
    row.id = `step-${step}`;
    row.append(cell("name", label), cell("track"), cell("time", "–"));
    row.querySelector(".track").append(cell("reach"));
    find("timeline").append(row);
  }
}

function cell(className, text = "") {
  const element = document.createElement(className === "track" || className === "reach" ? "div" : "span");
  element.className = className;
  element.textContent = text;
  return element;
}

function drawTimeline(timeline) {
  const longest = Math.max(1, ...Object.values(timeline));
  for (const [step] of timelineSteps) {
    const row = find(`step-${step}`);
    const at = timeline[step];
    row.classList.toggle("reached", at !== undefined);
    row.querySelector(".time").textContent = at === undefined ? "–" : `${Math.round(at)} ms`;
    row.querySelector(".reach").style.setProperty("--reach", at === undefined ? 0 : at / longest);
  }
}

let drawnEvents = null;
let drawnEventCount = 0;

/// Appends what is new; a list that belongs to another call, or that has begun to forget, is written again.
function drawEvents(events) {
  const list = find("events");
  if (events !== drawnEvents || events.length < drawnEventCount || events.length === eventsKept) {
    list.replaceChildren();
    drawnEventCount = 0;
    drawnEvents = events;
  }
  for (const event of events.slice(drawnEventCount)) {
    const row = document.createElement("li");
    row.textContent = event.type;
    list.append(row);
  }
  drawnEventCount = events.length;
}

/// Runs once a frame during a call. A meter's spoken value changes only twice a second.
function drawMeters(time = 0) {
  const speakValues = Math.floor(time / 500) !== Math.floor((drawMeters.last ?? 0) / 500);
  drawMeters.last = time;
  drawMeter(find("meter-you"), call?.you, speakValues);
  drawMeter(find("meter-echo"), call?.echo, speakValues);
  if (speakValues) {
    const tone = call?.echo?.dominantFrequency;
    setText("tone", tone ? `${Math.round(tone)} Hz` : "none");
  }
  if (call) requestAnimationFrame(drawMeters);
}

function drawMeter(meter, listener, speakValue) {
  const decibels = Math.max(silenceDecibels, Math.min(0, listener?.decibels ?? silenceDecibels));
  meter.style.setProperty("--level", 1 - decibels / silenceDecibels);
  if (speakValue) meter.setAttribute("aria-valuenow", Math.round(decibels));
}

// MARK: Tests look in here

window.swiftlet = {
  /// "idle", "connecting" or "talking".
  get state() { return phase(); },
  /// Milliseconds since the click at which each step was reached, of this call or the one before.
  get timeline() { return { ...lastCall?.timeline }; },
  get error() { return lastError?.message ?? null; },
  get callID() { return lastCall?.id ?? null; },
  /// Root mean square in dBFS; null without a call.
  get levels() { return { you: call?.you?.decibels ?? null, echo: call?.echo?.decibels ?? null }; },
  get channelState() { return lastCall?.channel?.readyState ?? "closed"; },
  get events() { return lastCall?.events ?? []; },
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

buildTimeline();
draw();
find("call").addEventListener("click", toggle);
window.addEventListener("pagehide", () => call?.end());
document.addEventListener("keydown", (event) => {
  // The space bar works anywhere, but never twice: on a focused control it already means that control.
  if (event.code !== "Space" || event.repeat || event.target.closest("button, input, summary, a")) return;
  event.preventDefault();
  toggle();
});
