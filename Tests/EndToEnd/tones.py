"""Tones: what clients send, and how the tests recognise it again after it went through the servers."""

import wave

import numpy as np

# The frequency that every client sends. It must survive Opus at any bitrate, and lie away from mains hum and DC.
TONE_HZ = 440.0

# How far the measured peak may lie from it: half a semitone, far more than any codec shifts it, far less than a mistake.
TOLERANCE_HZ = 12.0

SAMPLE_RATE = 48_000


def sine(sample_count, start=0, frequency=TONE_HZ, amplitude=0.4, rate=SAMPLE_RATE):
    """`sample_count` samples from sample `start` on, in -1...1; consecutive calls join without a click."""
    return amplitude * np.sin(2 * np.pi * frequency * (start + np.arange(sample_count)) / rate)


def write_wave(path, seconds=2, frequency=TONE_HZ):
    """A mono 16-bit file. Whole seconds of a whole number of hertz loop without a click."""
    write_samples(path, sine(seconds * SAMPLE_RATE, frequency=frequency) * 32767)


def write_samples(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(np.asarray(samples).astype("<i2").tobytes())


def dominant_frequency(samples, rate=SAMPLE_RATE):
    """Hertz of the strongest partial, or None for silence (below -60 dBFS) and for less than 100 ms of audio."""
    samples = np.asarray(samples, dtype=float)
    if len(samples) < rate // 10 or np.sqrt(np.mean(samples**2)) < 1e-3:
        return None
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    spectrum[0] = 0
    return float(np.argmax(spectrum)) * rate / len(samples)


def is_tone(frequency):
    return frequency is not None and abs(frequency - TONE_HZ) <= TOLERANCE_HZ
