// An AudioWorklet that hears when sound begins and ends. It runs on the audio thread, so that latencies do not depend on how
// busy the page is. It measures blocks of 10 ms, and reports every 50 ms: {at, peak, onset, lastLoud}, times in seconds of the
// audio context, levels in dBFS. `onset` is there only in the report after silence was broken.

const blocksASecond = 100;
const blocksAReport = 5;

/// Never loud below this; and loud is what stands out of the noise by that much.
const quietestDecibels = -50;
const aboveNoiseDecibels = 12;

/// The estimate of the noise falls at once and rises slowly (per block), so that words do not lift it; its bounds.
const noiseRiseDecibels = 0.02;
const noiseBounds = [-80, -35];

/// Sound begins with two loud blocks, so that a click is none, and ends after a quarter of a second without one.
const blocksToBegin = 2;
const blocksToEnd = 25;

registerProcessor("ear", class extends AudioWorkletProcessor {
  energy = 0;
  samples = 0;
  noise = -60;
  loudBlocks = 0;
  quietBlocks = blocksToEnd;
  sounding = false;
  report = { peak: -Infinity, blocks: 0, onset: null, lastLoud: null };

  process([input]) {
    const channel = input[0];
    for (const sample of channel ?? []) this.energy += sample * sample;
    this.samples += channel?.length ?? 128;   // without input a source is silent
    if (this.samples >= sampleRate / blocksASecond) this.endBlock();
    return true;
  }

  endBlock() {
    const decibels = 10 * Math.log10(this.energy / this.samples + 1e-12);
    const seconds = this.samples / sampleRate;
    this.energy = 0;
    this.samples = 0;
    this.noise = Math.min(decibels, this.noise + noiseRiseDecibels);
    this.noise = Math.max(noiseBounds[0], Math.min(noiseBounds[1], this.noise));
    if (decibels > Math.max(quietestDecibels, this.noise + aboveNoiseDecibels)) this.hearSound(seconds);
    else this.hearSilence();
    this.report.peak = Math.max(this.report.peak, decibels);
    this.report.blocks += 1;
    if (this.report.blocks === blocksAReport) this.send();
  }

  hearSound(seconds) {
    this.loudBlocks += 1;
    this.quietBlocks = 0;
    this.report.lastLoud = currentTime;
    if (this.sounding || this.loudBlocks < blocksToBegin) return;
    this.sounding = true;
    this.report.onset = currentTime - this.loudBlocks * seconds;
  }

  hearSilence() {
    this.loudBlocks = 0;
    this.quietBlocks += 1;
    if (this.quietBlocks >= blocksToEnd) this.sounding = false;
  }

  send() {
    const { peak, onset, lastLoud } = this.report;
    this.port.postMessage({ at: currentTime, peak, onset, lastLoud, sounding: this.sounding });
    this.report = { peak: -Infinity, blocks: 0, onset: null, lastLoud };
  }
});
