// What one audio stream sounds like: `Listener` for meters and tones, asked when something is drawn; its `Ear` for the moments
// at which sound began and ended, told by the audio thread.

/// What a meter shows at its lower end; a quiet room is near -60 dBFS.
export const silenceDecibels = -60;

/// Seconds of loudness kept for the lanes.
const memoryMilliseconds = 40_000;

/// Must be awaited once for each audio context before ears hear; without worklets there are meters and no moments.
export async function prepareEars(audio) {
  try {
    await audio.audioWorklet.addModule("ear.js");
    return true;
  } catch {
    return false;
  }
}

/// Level and strongest frequency of one stream.
export class Listener {
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

/// Hears a listener's stream on the audio thread. All times are those of `performance.now()`.
export class Ear {
  /// `began(at)` is called when sound breaks silence, `reported()` 20 times a second.
  constructor(listener, { began, reported }) {
    this.loudness = [];        // {at, peak}, oldest first
    this.lastLoudAt = null;
    this.isSounding = false;
    const audio = listener.source.context;
    this.node = new AudioWorkletNode(audio, "ear", { channelCount: 1, channelCountMode: "explicit" });
    listener.source.connect(this.node);
    this.node.connect(audio.destination);   // it is silent there; browsers run only what leads somewhere
    this.node.port.addEventListener("message", ({ data }) => {
      // The two clocks are compared anew each time, because they drift.
      const pageTime = (seconds) => performance.now() - (audio.currentTime - seconds) * 1000;
      if (data.lastLoud !== null) this.lastLoudAt = pageTime(data.lastLoud);
      this.isSounding = data.sounding;
      this.remember(pageTime(data.at), data.peak);
      if (data.onset !== null) began(pageTime(data.onset));
      reported();
    });
    this.node.port.start();
  }

  remember(at, peak) {
    this.loudness.push({ at, peak });
    while (this.loudness[0].at < at - memoryMilliseconds) this.loudness.shift();
  }
}
