// The dashboard. Every message of /events carries sums since the start; what is shown are differences between two of them.
//
// Read in this order: `receive` turns a message into a `sample` of the last second; the `show…` functions below draw the
// samples. `window.dashboard` hands the same facts to tests and to a curious console; nothing on the page depends on it.

const secondsKept = 120;
const samples = [];
let last = null;

const element = (id) => document.getElementById(id);
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// MARK: Messages

const source = new EventSource("/events");
source.onopen = () => link("live", "Live");
source.onerror = () => link("lost", "Connection lost; trying again…");
source.onmessage = (event) => receive(JSON.parse(event.data));

function link(state, text) {
  if (document.body.dataset.link === state) return;
  document.body.dataset.link = state;
  element("link").textContent = text;
}

function receive(message) {
  // A program that was started again counts from zero: nothing can be compared with what was before.
  const restarted = last && message.uptime < last.uptime;
  if (restarted) last = null;
  if (last) {
    samples.push(difference(last, message));
    if (samples.length > secondsKept) samples.shift();
  }
  last = message;
  showTitle(message);
  showMarks(message.marks);
  if (samples.length > 0) showAll();
}

/// What happened between two messages, per second where it is a rate.
function difference(before, after) {
  const seconds = Math.max(0.001, after.uptime - before.uptime);
  const workers = after.workers.map((worker, index) => workerDifference(before.workers[index] ?? worker, worker, seconds));
  return {
    time: after.time,
    workers,
    traffic: after.workers[0].traffic.map((_, index) => sum(workers, (worker) => worker.traffic[index].packets)),
    bytes: sum(workers, (worker) => sum(worker.traffic, (way) => way.bytes ?? 0)),
    packets: sum(workers, (worker) => worker.packets),
    cpu: sum(workers, (worker) => worker.cpu),
    cpuTime: sum(workers, (worker) => worker.cpuTime),
    count: sum(workers, (worker) => worker.count),
    latency: mergeAll(workers.map((worker) => worker.latency)),
    drops: after.drops.map((drop) => {
      const earlier = before.drops.find((other) => other.reason === drop.reason)?.count ?? 0;
      return { reason: drop.reason, rate: (drop.count - earlier) / seconds, total: drop.count };
    }),
    trunk: after.trunk.map((peer) => ({ ...peer, ...recentLoss(before.trunk, peer) })),
    fill: after.fill,
  };
}

/// Pings that went out between two messages, and how many of them were not answered: the one under way is no loss.
function recentLoss(before, peer) {
  const earlier = before.find((other) => other.name === peer.name) ?? peer;
  return { asked: peer.pings - earlier.pings, answered: peer.pongs - earlier.pongs };
}

function workerDifference(before, after, seconds) {
  const traffic = after.traffic.map((way, index) => {
    const earlier = before.traffic[index];
    const per = (key) => (way[key] === null ? null : (way[key] - earlier[key]) / seconds);
    return { name: way.name, packets: per("packets"), bytes: per("bytes"), batches: per("batches") };
  });
  const count = sum(after.traffic, (way, index) => way.packets - before.traffic[index].packets);
  const cpuTime = after.cpu.total - before.cpu.total;
  const kernel = after.cpu.kernel - before.cpu.kernel;
  return {
    name: after.name,
    traffic,
    count,
    packets: count / seconds,
    cpuTime,
    cpu: cpuTime / (seconds * 1e9),
    kernelTime: kernel,
    switches: {
      voluntary: (after.switches.voluntary - before.switches.voluntary) / seconds,
      involuntary: (after.switches.involuntary - before.switches.involuntary) / seconds,
    },
    perf: after.perf.map((counter, index) => ({
      name: counter.name,
      space: counter.space,
      unavailable: counter.unavailable ?? before.perf[index].unavailable,
      amount: counter.value - before.perf[index].value,
      seconds,
    })),
    batch: subtract(pairs(after.batch), pairs(before.batch)),
    latency: subtract(pairs(after.latency), pairs(before.latency)),
  };
}

// MARK: Histograms: a map from bucket to count, with the program's own bounds

const sum = (list, value) => list.reduce((total, item, index) => total + value(item, index), 0);

function pairs(list) {
  const map = new Map();
  for (let index = 0; index < list.length; index += 2) map.set(list[index], list[index + 1]);
  return map;
}

function subtract(after, before) {
  const map = new Map();
  for (const [bucket, count] of after) {
    const rest = count - (before.get(bucket) ?? 0);
    if (rest > 0) map.set(bucket, rest);
  }
  return map;
}

function mergeAll(maps) {
  const all = new Map();
  for (const map of maps) for (const [bucket, count] of map) all.set(bucket, (all.get(bucket) ?? 0) + count);
  return all;
}

/// The largest value of a bucket: four to an octave.
const upperBound = (bucket) => (bucket < 4 ? bucket + 1 : ((bucket % 4) + 5) * 2 ** (Math.floor(bucket / 4) - 1));

function quantile(map, share) {
  const total = sum([...map.values()], (count) => count);
  if (total === 0) return null;
  let seen = 0;
  for (const bucket of [...map.keys()].sort((a, b) => a - b)) {
    seen += map.get(bucket);
    if (seen >= share * total) return upperBound(bucket);
  }
  return null;
}

// MARK: Text

const missing = "–";

function number(value, digits = 3) {
  if (value === null || !Number.isFinite(value)) return missing;
  if (Number.isInteger(value) && Math.abs(value) < 1e4) return value.toString();
  for (const [limit, unit] of [[1e9, " G"], [1e6, " M"], [1e4, " k"]]) {
    if (Math.abs(value) >= limit) return round(value / (limit === 1e4 ? 1e3 : limit), digits) + unit;
  }
  return round(value, digits);
}

const round = (value, digits) =>
  value >= 10 ** (digits - 1) ? Math.round(value).toString() : value.toFixed(Math.min(2, Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value) || 1)))));

function duration(nanoseconds) {
  if (nanoseconds === null || !Number.isFinite(nanoseconds)) return missing;
  if (nanoseconds < 1e3) return `${Math.round(nanoseconds)} ns`;
  if (nanoseconds < 1e6) return `${round(nanoseconds / 1e3, 3)} µs`;
  return nanoseconds < 1e9 ? `${round(nanoseconds / 1e6, 3)} ms` : `${round(nanoseconds / 1e9, 3)} s`;
}

const percent = (share) => (share === null || !Number.isFinite(share) ? missing : `${round(share * 100, 2)} %`);
const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });

function uptimeText(seconds) {
  const days = Math.floor(seconds / 86_400);
  const rest = new Date(seconds * 1000).toISOString().slice(11, 19);
  return days > 0 ? `${days} d ${rest}` : rest;
}

/// Makes an element with text and children; text never becomes markup.
function make(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// MARK: What is shown

function showAll() {
  const sample = samples[samples.length - 1];
  showHeadline(sample);
  showRate();
  showHeat();
  showWorkers(sample);
  showPerf(sample);
  showTrunk(sample);
  showDrops(sample);
}

function showTitle(message) {
  const title = `Swiftlet ${message.program}`;
  document.title = `${title} – dashboard`;
  element("title").textContent = title;
  link("live", "Live");
  element("link").textContent = `Live · up ${uptimeText(message.uptime)} · ${message.workers.length} workers`;
}

function showHeadline(sample) {
  const recent = mergeAll(samples.slice(-10).map((one) => one.latency));
  const { used, confirmed, capacity, name } = sample.fill;
  const dropped = sum(sample.drops, (drop) => drop.rate);
  const meter = make("meter", { min: 0, max: capacity, value: used, "aria-label": `${name} in use, ${confirmed} confirmed` });
  const figures = [
    ["packets per second", number(sample.packets)],
    ["CPU per packet", sample.count > 0 ? duration(sample.cpuTime / sample.count) : missing],
    ["of one processor", percent(sample.cpu)],
    ["p99 latency added", duration(quantile(recent, 0.99))],
    [`${name} of ${number(capacity)}`, number(used), meter],
    ["dropped per second", number(dropped), null, dropped > 0 ? "bad" : ""],
  ];
  element("headline").replaceChildren(
    ...figures.map(([label, value, extra, kind]) =>
      make("div", { class: kind ?? "" }, ...[extra].filter(Boolean), make("dt", {}, label), make("dd", {}, value))),
  );
}

function showMarks(marks) {
  element("marks").replaceChildren(
    ...marks.toReversed().map((mark) => make("li", {}, make("time", { datetime: new Date(mark.time).toISOString() }, clock(mark.time)), mark.text)),
  );
}

function fillTable(id, caption, head, rows) {
  const table = element(id);
  const focused = table.contains(document.activeElement);
  table.replaceChildren(
    make("caption", { class: "unseen" }, caption),
    make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, ...rows),
  );
  if (focused) table.focus();
}

const row = (name, cells) => make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((text) => make("td", {}, text)));

function showWorkers(sample) {
  const ways = sample.workers[0].traffic;
  const hasBytes = ways.map((way) => way.bytes !== null);
  const head = ["worker"];
  ways.forEach((way, index) => {
    head.push(`${way.name}/s`);
    if (hasBytes[index]) head.push("bytes/s");
  });
  head.push("batch p50", "batch max", "CPU", "in kernel", "CPU/packet", "waits/s", "preempted/s", "latency p50", "p99");
  const rows = sample.workers.map((worker, index) => {
    const cells = [];
    worker.traffic.forEach((way, place) => {
      cells.push(number(way.packets));
      if (hasBytes[place]) cells.push(number(way.bytes));
    });
    cells.push(
      number(quantile(worker.batch, 0.5)), number(quantile(worker.batch, 1)), percent(worker.cpu), percent(kernelShare(index)),
      worker.count > 0 ? duration(worker.cpuTime / worker.count) : missing,
      number(worker.switches.voluntary), number(worker.switches.involuntary),
      duration(quantile(worker.latency, 0.5)), duration(quantile(worker.latency, 0.99)),
    );
    return row(worker.name, cells);
  });
  fillTable("workers", "Traffic and processor time of every worker in the last second", head, rows);
}

/// The kernel's part of a worker's time, over ten seconds: many kernels only sample it, so that one second is mostly chance.
function kernelShare(index) {
  const recent = samples.slice(-10).map((sample) => sample.workers[index]).filter(Boolean);
  const total = sum(recent, (worker) => worker.cpuTime);
  return total > 0 ? Math.min(1, sum(recent, (worker) => worker.kernelTime) / total) : null;
}

const perfNames = {
  cpu_seconds: "CPU time", context_switches: "context switches", migrations: "migrations", page_faults: "page faults",
  cycles: "cycles", instructions: "instructions", cache_misses: "cache misses", branch_misses: "branch misses",
};

/// Counters of the processor and the kernel. One that is not there says why: never 0 for unknown.
function showPerf(sample) {
  const rows = sample.workers[0].perf.map((counter, index) => {
    const label = perfNames[counter.name] ?? counter.name;
    const all = sample.workers.map((worker) => worker.perf[index]);
    const reasons = new Set(all.map((one) => one.unavailable));
    if (reasons.size === 1 && counter.unavailable !== undefined) {
      const text = `unavailable, because ${counter.unavailable}`;
      return make("tr", {}, make("th", { scope: "row" }, label), make("td", { class: "why", colspan: all.length }, text));
    }
    return row(counter.space === "user" ? `${label} (user space only)` : label, all.map((one, place) => perfText(one, sample.workers[place])));
  });
  fillTable("perf", "Counters of every worker, per packet or per second", ["counter", ...sample.workers.map((w) => w.name)], rows);
}

function perfText(counter, worker) {
  if (counter.unavailable !== undefined) return `unavailable, because ${counter.unavailable}`;
  const perSecond = `${number(counter.amount / counter.seconds)} /s`;
  if (counter.name === "cpu_seconds") return worker.count > 0 ? duration(counter.amount / worker.count) : duration(counter.amount);
  return worker.count > 0 ? `${number(counter.amount / worker.count)} (${perSecond})` : perSecond;
}

/// One row for each relay or transceiver that is pinged. Loss is of the last minute, so that one ping under way does not show.
function showTrunk(sample) {
  element("trunk-card").hidden = sample.trunk.length === 0;
  const minute = samples.slice(-60);
  const rows = sample.trunk.map((peer) => {
    const seen = minute.flatMap((one) => one.trunk.filter((other) => other.name === peer.name));
    const [asked, answered] = [sum(seen, (one) => one.asked), sum(seen, (one) => one.answered)];
    const lost = asked > 1 ? Math.max(0, asked - answered - 1) / asked : null;
    const made = row(peer.name, [peer.alive ? (peer.draining ? "draining" : "answers") : "silent", duration(peer.roundTrip), percent(lost), number(peer.pings, 6)]);
    if (!peer.alive) made.classList.add("bad");
    return made;
  });
  fillTable("trunk", "Relays and transceivers at the other end of the trunk", ["who", "state", "round trip", "lost, last minute", "pings"], rows);
}

function showDrops(sample) {
  const order = sample.drops.toSorted((a, b) => b.rate - a.rate || b.total - a.total);
  const rows = order.map((drop) => row(drop.reason, [number(drop.rate), number(drop.total, 6)]));
  const none = make("tr", {}, make("td", { class: "none", colspan: 3 }, "Nothing was dropped since the start."));
  fillTable("drops", "What was dropped, by reason", ["reason", "per second", "since the start"], rows.length > 0 ? rows : [none]);
}

// MARK: Pictures

/// A canvas with as many pixels as the screen has, cleared; drawing is in CSS pixels.
function canvas(id) {
  const target = element(id);
  const width = target.clientWidth;
  const height = Number(target.dataset.height ??= target.getAttribute("height"));
  const ratio = window.devicePixelRatio || 1;
  target.style.height = `${height}px`;
  target.width = width * ratio;
  target.height = height * ratio;
  const context = target.getContext("2d");
  context.scale(ratio, ratio);
  context.font = "16px system-ui, sans-serif";
  return { target, context, width, height };
}

const margin = { left: 76, bottom: 24, top: 22 };

/// Where second `index` of the samples is drawn: the newest at the right.
const column = (index, width) => margin.left + ((index + secondsKept - samples.length) * (width - margin.left)) / secondsKept;

function drawTime(context, width, height) {
  context.fillStyle = color("--quiet");
  context.textAlign = "center";
  for (const ago of [90, 60, 30]) {
    context.fillText(`${ago} s ago`, margin.left + ((secondsKept - ago) * (width - margin.left)) / secondsKept, height - 5);
  }
}

function drawMarks(context, width, height) {
  if (samples.length < 2) return;
  const now = samples[samples.length - 1].time;
  context.strokeStyle = context.fillStyle = color("--mark");
  context.lineWidth = 2;
  // What happened at once shares one label.
  const groups = [];
  for (const mark of last.marks) {
    const ago = (now - mark.time) / 1000;
    if (ago > secondsKept) continue;
    const x = width - (ago * (width - margin.left)) / secondsKept;
    const group = groups.at(-1);
    if (group && x - group.x < 12) {
      if (!group.texts.includes(mark.text)) group.texts.push(mark.text);
    } else groups.push({ x, texts: [mark.text] });
  }
  let free = 0;
  for (const { x, texts } of groups) {
    context.beginPath();
    context.moveTo(x, margin.top - 4);
    context.lineTo(x, height - margin.bottom);
    context.stroke();
    const text = texts.join(", ");
    const length = context.measureText(text).width;
    const start = x + 6 + length > width ? x - 6 - length : x + 6;
    // A label without room is left out: the list of events has it.
    if (start < free) continue;
    context.textAlign = "left";
    context.fillText(text, start, margin.top - 6);
    free = start + length + 12;
  }
}

/// The next number upwards that begins with 1, 2 or 5.
function niceLimit(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

function showRate() {
  const { target, context, width, height } = canvas("rate");
  const limit = niceLimit(Math.max(10, ...samples.map((sample) => Math.max(...sample.traffic))));
  const y = (value) => height - margin.bottom - (value / limit) * (height - margin.bottom - margin.top);
  context.strokeStyle = color("--line");
  context.fillStyle = color("--quiet");
  context.textAlign = "right";
  for (const share of [0, 0.5, 1]) {
    context.beginPath();
    context.moveTo(margin.left, y(limit * share));
    context.lineTo(width, y(limit * share));
    context.stroke();
    context.fillText(number(limit * share), margin.left - 8, y(limit * share) + 5);
  }
  drawTime(context, width, height);
  const names = last.workers[0].traffic.map((way) => way.name);
  names.forEach((_, way) => {
    context.strokeStyle = color(way === 0 ? "--in" : "--out");
    context.lineWidth = 3;
    // Two equal lines must both be seen.
    context.setLineDash(way === 0 ? [] : [8, 6]);
    context.beginPath();
    samples.forEach((sample, index) => context.lineTo(column(index + 1, width), y(sample.traffic[way])));
    context.stroke();
  });
  context.setLineDash([]);
  drawMarks(context, width, height);
  const now = samples[samples.length - 1].traffic.map((rate, way) => `${names[way]} ${number(rate)}`);
  target.setAttribute("aria-label", `Packets per second now: ${now.join(", ")}`);
  element("rate-legend").replaceChildren(...names.map((name, way) => make("span", { class: way === 0 ? "in" : "out" }, name)));
}

/// One column a second, one row for half an octave; the stronger, the more of that second's samples lie there.
function showHeat() {
  const { target, context, width, height } = canvas("heat");
  const buckets = samples.flatMap((sample) => [...sample.latency.keys()]);
  // At least from 4 µs to 1 ms, so that the picture does not jump about.
  const lowest = Math.min(4 * 11, ...buckets);
  const highest = Math.max(4 * 19, ...buckets) + 1;
  const rows = Math.ceil((highest - lowest) / 2);
  const rowHeight = (height - margin.bottom - margin.top) / rows;
  const y = (row) => height - margin.bottom - (row + 1) * rowHeight;
  const columnWidth = (width - margin.left) / secondsKept;
  const heat = color("--heat");
  samples.forEach((sample, index) => {
    const counts = new Map();
    for (const [bucket, count] of sample.latency) {
      const row = Math.floor((bucket - lowest) / 2);
      counts.set(row, (counts.get(row) ?? 0) + count);
    }
    const most = Math.max(...counts.values());
    for (const [row, count] of counts) {
      context.fillStyle = `rgb(${heat} / ${0.15 + 0.85 * Math.sqrt(count / most)})`;
      context.fillRect(column(index, width), y(row), columnWidth + 0.5, rowHeight);
    }
  });
  context.fillStyle = color("--quiet");
  context.textAlign = "right";
  let lastLabel = Infinity;
  for (let row = 0; row < rows; row += 1) {
    if (lastLabel - y(row) < 28) continue;
    lastLabel = y(row);
    context.fillText(duration(upperBound(lowest + 2 * row + 1)), margin.left - 8, y(row) + 8);
  }
  drawTime(context, width, height);
  drawMarks(context, width, height);
  const recent = mergeAll(samples.slice(-10).map((sample) => sample.latency));
  const count = sum([...recent.values()], (value) => value);
  const words = [["p50", 0.5], ["p99", 0.99], ["p99.9", 0.999], ["most", 1]].map(([name, share]) => `${name} ${duration(quantile(recent, share))}`);
  const text = count > 0 ? `Last 10 s, ${number(count)} samples: at most ${words.join(", ")}` : "No samples in the last 10 s.";
  element("heat-summary").textContent = text;
  target.setAttribute("aria-label", `Added latency over time. ${text}`);
}

const redraw = () => samples.length > 0 && showAll();
window.addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

window.dashboard = { samples, get last() { return last; }, quantile };
