// The last half minute (on a phone less) as two lanes: the caller's voice above, the answer below, time from left to right.
// Bars are what the server said (turns, answers), the ragged shapes in them what this browser heard. Between the end of a turn
// and the answer stands how long that took. The same facts are in the list of turns, for whoever does not see the picture.

import { element, find, milliseconds, seconds, setText } from "./elements.js";

const spanOnDesk = 30_000;
const spanOnPhone = 15_000;
const phoneWidth = 480;
const quietestDecibels = -60;
const turnsListed = 5;

/// In CSS pixels.
const laneHeight = 44;
const top = 18;          // room for the mark of an interruption
const gap = 22;          // between the lanes: room for the latency
const axisHeight = 20;
const height = top + 2 * laneHeight + gap + axisHeight;

/// Draws what lies before `now`. `call` may be over; then `now` is its end.
export function drawLanes(call, now) {
  const canvas = find("lanes");
  const width = canvas.clientWidth;
  const scale = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  const colors = colorsOf(canvas);
  const span = width < phoneWidth ? spanOnPhone : spanOnDesk;
  setText("lanes-span", `the last ${span / 1000} seconds`);
  const place = { x: (at) => width - ((now - at) / span) * width, width, span };
  drawAxis(pen, place, colors, call);
  if (!call) return;
  const { turns, answers } = call.conversation;
  const yours = { y: top, color: colors.you };
  const answered = { y: top + laneHeight + gap, color: colors.echo };
  const since = now - span;
  for (const turn of turns) drawBar(pen, place, yours, turn.startedAt, turn.stoppedAt ?? now, since);
  for (const answer of answers) {
    const from = answer.beganAt ?? answer.heardAt;
    if (from !== null) drawBar(pen, place, answered, from, answer.endedAt ?? now, since);
  }
  drawLoudness(pen, place, yours, call.yourEar);
  drawLoudness(pen, place, answered, call.answerEar);
  for (const answer of answers) if (answer.interruptedAt !== null) drawInterruption(pen, place, colors, answer.interruptedAt);
  for (const answer of answers) drawWait(pen, place, colors, answer);
}

/// Of the style sheet, so that both colour schemes are told in one place.
function colorsOf(canvas) {
  const style = getComputedStyle(canvas);
  const names = ["you", "echo", "line", "quiet", "ink", "stop", "card"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

function drawAxis(pen, { width, span }, colors, call) {
  pen.fillStyle = colors.line;
  pen.globalAlpha = 0.35;
  for (const y of [top, top + laneHeight + gap]) {
    pen.beginPath();
    pen.roundRect(0, y, width, laneHeight, 6);
    pen.fill();
  }
  pen.globalAlpha = 1;
  pen.font = "11px system-ui, sans-serif";
  pen.fillStyle = colors.quiet;
  const baseline = height - 5;
  for (let ago = 5; ago < span / 1000; ago += 5) {
    const x = width - (ago * 1000 / span) * width;
    pen.globalAlpha = 0.5;
    pen.fillRect(Math.round(x), height - axisHeight, 1, 4);
    pen.globalAlpha = 1;
    pen.textAlign = "center";
    pen.fillText(`−${ago} s`, x, baseline);
  }
  pen.textAlign = "right";
  pen.fillText(call?.isOver ? "end" : "now", width, baseline);
}

function drawBar(pen, place, lane, from, to, since) {
  if (to < since) return;
  const x = Math.max(-8, place.x(from));
  pen.fillStyle = lane.color;
  pen.globalAlpha = 0.28;
  pen.beginPath();
  pen.roundRect(x, lane.y, Math.max(2, place.x(to) - x), laneHeight, 6);
  pen.fill();
  pen.globalAlpha = 1;
}

/// The ragged shape: a column for every report of the ear, mirrored about the middle of the lane.
function drawLoudness(pen, place, lane, ear) {
  if (!ear) return;
  const middle = lane.y + laneHeight / 2;
  const column = place.width / (place.span / 50) + 0.5;   // half a pixel over the next one, or there would be seams
  pen.fillStyle = lane.color;
  for (const { at, peak } of ear.loudness) {
    const x = place.x(at);
    if (x < -column) continue;
    const share = Math.max(0, Math.min(1, 1 - peak / quietestDecibels));
    const half = Math.max(0.5, share * share * (laneHeight / 2 - 3));
    pen.fillRect(x - column, middle - half, column, 2 * half);
  }
}

/// From the end of the turn to the first sound of the answer, and how long it took.
function drawWait(pen, place, colors, answer) {
  const from = answer.turn?.stoppedAt ?? null;
  const to = answer.heardAt ?? answer.beganAt;
  if (from === null || to === null || place.x(to) < 0) return;
  const y = top + laneHeight + gap / 2;
  const [left, right] = [place.x(from), place.x(to)];
  pen.strokeStyle = colors.ink;
  pen.lineWidth = 1.5;
  pen.beginPath();
  pen.moveTo(left, y - gap / 2);
  pen.lineTo(left, y);
  pen.lineTo(right, y);
  pen.lineTo(right, y + gap / 2);
  pen.stroke();
  pen.font = "600 12px system-ui, sans-serif";
  pen.fillStyle = colors.ink;
  const text = milliseconds(to - from);
  const room = pen.measureText(text).width + 8;
  pen.textAlign = "left";
  const x = Math.min(right + 6, place.width - room);
  pen.strokeStyle = colors.card;   // a halo, so that it can be read over the line of an interruption
  pen.lineWidth = 4;
  pen.strokeText(text, x, y + 4);
  pen.fillText(text, x, y + 4);
}

function drawInterruption(pen, place, colors, at) {
  const x = place.x(at);
  if (x < 0) return;
  pen.strokeStyle = colors.stop;
  pen.lineWidth = 2;
  pen.setLineDash([4, 3]);
  pen.beginPath();
  pen.moveTo(x, top - 4);
  pen.lineTo(x, height - axisHeight);
  pen.stroke();
  pen.setLineDash([]);
  pen.font = "600 11px system-ui, sans-serif";
  pen.fillStyle = colors.stop;
  pen.textAlign = x < 60 ? "left" : x > place.width - 60 ? "right" : "center";
  pen.fillText("interrupted", x, top - 7);
}

// MARK: The list of turns

/// The last turns in words, the newest first.
export function drawTurns(conversation) {
  const turns = (conversation?.turns ?? []).slice(-turnsListed).reverse();
  const rows = turns.map((turn) => {
    const row = element("li", "turn");
    row.dataset.kind = turn.answer?.interruptedAt ? "interrupted" : turn.answer ? "answered" : "open";
    row.append(element("span", "spoke", spokeText(turn)), element("span", "replied", repliedText(turn)));
    return row;
  });
  const list = find("turns");
  const same = rows.length === list.children.length && rows.every((row, index) => row.isEqualNode(list.children[index]));
  if (!same) list.replaceChildren(...rows);
}

function spokeText({ startedAt, stoppedAt }) {
  return stoppedAt === null ? "You are speaking" : `You spoke for ${seconds(stoppedAt - startedAt)}`;
}

function repliedText({ stoppedAt, answer }) {
  if (!answer) return stoppedAt === null ? "" : "not answered";
  const from = answer.heardAt ?? answer.beganAt;
  if (from === null) return answer.status === "in_progress" ? "waiting for the answer" : "answered without sound";
  const after = `answered after ${milliseconds(from - stoppedAt)}`;
  if (answer.endedAt === null) return after;
  const length = seconds(answer.endedAt - (answer.beganAt ?? from));
  return answer.wasCut ? `${after}, ${answer.interruptedAt ? "interrupted" : "stopped"} after ${length}` : `${after}, for ${length}`;
}
