// Numbers: how long answers take, how long the call took to set up, and what the network does to it.

import { element, find, milliseconds, setText } from "./elements.js";

/// The steps of setting up a call, in the order in which they normally happen.
const setupSteps = [
  ["microphone", "Microphone open"],
  ["offer", "Offer created"],
  ["answer", "Answer received"],
  ["ice", "ICE connected"],
  ["dtls", "DTLS connected"],
  ["audio", "First audio packet"],
];

export function buildSetup() {
  for (const [step, label] of setupSteps) {
    const row = element("li", "");
    row.id = `step-${step}`;
    const track = element("div", "track");
    track.append(element("div", "reach"));
    row.append(element("span", "name", label), track, element("span", "time", "–"));
    find("timeline").append(row);
  }
}

/// A backend that waits for the caller sends its first packet whenever it answers, so that one has no say in the scale.
export function drawSetup(timeline) {
  const longest = Math.max(1, ...Object.entries(timeline).map(([step, at]) => (step === "audio" ? 0 : at)));
  for (const [step] of setupSteps) {
    const row = find(`step-${step}`);
    const at = timeline[step];
    row.classList.toggle("reached", at !== undefined);
    setText(row.querySelector(".time"), at === undefined ? "–" : milliseconds(at));
    row.querySelector(".reach").style.setProperty("--reach", at === undefined ? 0 : Math.min(1, at / longest));
  }
}

/// The last one large, the median of all beside it.
export function drawLatencies(latencies) {
  for (const [name, values] of Object.entries(latencies ?? { started: [], heard: [], total: [], silence: [] })) {
    setText(`latency-${name}`, values.length ? milliseconds(values.at(-1)) : "–");
    setText(`median-${name}`, values.length > 1 ? `median ${milliseconds(median(values))} of ${values.length}` : "");
  }
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// MARK: The network

/// Reads what the browser knows of the connection; null without one.
export async function readNetwork(peer) {
  if (!peer || peer.connectionState === "closed") return null;
  const reports = [...(await peer.getStats()).values()];
  const ours = (type) => reports.find((report) => report.type === type && (report.kind ?? report.mediaType ?? "audio") === "audio");
  const [down, up] = [ours("inbound-rtp"), ours("remote-inbound-rtp")];
  const pair = reports.find(({ type, state, nominated }) => type === "candidate-pair" && state === "succeeded" && nominated);
  const seconds = pair?.currentRoundTripTime ?? up?.roundTripTime;
  const delay = down?.jitterBufferEmittedCount ? down.jitterBufferDelay / down.jitterBufferEmittedCount : undefined;
  return {
    roundTrip: seconds === undefined ? null : seconds * 1000,
    jitter: down?.jitter === undefined ? null : down.jitter * 1000,
    buffer: delay === undefined ? null : delay * 1000,
    lossDown: down?.packetsReceived ? down.packetsLost / (down.packetsLost + down.packetsReceived) : null,
    lossUp: up?.fractionLost ?? null,
    concealed: down?.totalSamplesReceived ? down.concealedSamples / down.totalSamplesReceived : null,
  };
}

export function drawNetwork(network) {
  const tenths = (value) => (value === null || value === undefined ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);
  const percent = (value) => (value === null || value === undefined ? "–" : `${(Math.max(0, value) * 100).toFixed(1)} %`);
  setText("stat-rtt", tenths(network?.roundTrip));
  setText("stat-jitter", tenths(network?.jitter));
  setText("stat-buffer", tenths(network?.buffer));
  setText("stat-loss-down", percent(network?.lossDown));
  setText("stat-loss-up", percent(network?.lossUp));
}
