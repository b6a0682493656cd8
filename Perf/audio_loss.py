"""Runs audio-bench over a matrix of networks and repairs and scores what was heard. Perf/audio-loss.sh calls it."""
import os, subprocess, sys, tempfile
import numpy as np
from pesq import pesq
from pystoi import stoi

RATE = 24000
TEXT = """The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background. It is easy to tell the depth of a well.
These days a chicken leg is a rare dish. Rice is often served in round bowls. The juice of lemons makes fine punch.
The box was thrown beside the parked truck. The hogs were fed chopped corn and garbage. Four hours of steady work faced us.
A large size in stockings is hard to sell. The boy was there when the sun rose. A rod is used to catch pink salmon.
The source of the huge river is the clear spring. Kick the ball straight and follow through. Help the woman get back to her feet.
A pot of tea helps to pass the evening. Smoky fires lack flame and heat. The soft cushion broke the man's fall."""

REPAIRS = [("nothing", []), ("FEC", ["--fec"]), ("RED 1", ["--red", "1"]), ("RED 1 + FEC", ["--red", "1", "--fec"]),
           ("RED 2 + FEC", ["--red", "2", "--fec"]), ("NACK", ["--nack"]), ("NACK + FEC", ["--nack", "--fec"]),
           ("RED 1 + FEC + NACK", ["--red", "1", "--fec", "--nack"])]


def speech(folder):
    """Some 50 s in two voices, 16 bits at 24 kHz."""
    path = os.path.join(folder, "speech.raw")
    pieces = []
    lines = TEXT.split("\n")
    for voice, text in (("en-us", "\n".join(lines[:3])), ("en-gb+f3", "\n".join(lines[3:]))):
        wav = os.path.join(folder, "voice.wav")
        subprocess.run(["espeak-ng", "-v", voice, "-s", "150", "-w", wav, text], check=True)
        subprocess.run(["sox", wav, "-D", "-t", "raw", "-r", str(RATE), "-e", "signed", "-b", "16", "-c", "1", wav + ".raw", "gain", "-3"], check=True)
        pieces.append(open(wav + ".raw", "rb").read())
    with open(path, "wb") as file:
        file.write(b"".join(pieces))
    return path


def shift(reference, heard, low, high):
    """By how many samples `heard` is late, in low…high, by cross-correlation."""
    piece = heard[max(low, 0):high + len(reference)]
    if len(piece) < len(reference) or not np.any(piece):
        return 0
    size = 1 << (len(piece) + len(reference)).bit_length()
    product = np.fft.irfft(np.fft.rfft(piece, size) * np.conj(np.fft.rfft(reference, size)))
    return max(low, 0) + int(np.argmax(product[:len(piece) - len(reference) + 1]))


def score(reference, heard):
    """STOI and PESQ (wide band, MOS-LQO) in the mean over stretches of 6 s, each put where it is heard: the delay changes on the way."""
    length = 6 * RATE
    stois, pesqs = [], []
    for start in range(0, len(reference) - length, length):
        piece = reference[start:start + length]
        at = shift(piece, heard, start, start + RATE)
        other = heard[at:at + length]
        if len(other) < length:
            break
        # Within a stretch the delay may step too: half a second at a time for STOI.
        aligned = other.copy()
        half = RATE // 2
        for inner in range(0, length - half, half):
            moved = shift(piece[inner:inner + half], heard, at + inner - RATE // 8, at + inner + RATE // 8)
            aligned[inner:inner + half] = heard[moved:moved + half]
        stois.append(stoi(piece, aligned, RATE))
        down = lambda x: np.interp(np.arange(0, len(x), 1.5), np.arange(len(x)), x).astype(np.int16)
        try:
            pesqs.append(pesq(16000, down(piece), down(other), "wb"))
        except Exception:
            pass
    return np.mean(stois), np.mean(pesqs)


def main():
    program = sys.argv[1]
    quick = bool(os.environ.get("QUICK"))
    with tempfile.TemporaryDirectory() as folder:
        path = speech(folder)
        reference = np.fromfile(path, np.int16).astype(float)
        out = os.path.join(folder, "heard.raw")
        print("| loss | pattern | jitter | repair | concealed frames | delay | sent again | kbit/s | STOI | PESQ |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        worst = 0.0
        given = lambda name, usual: [int(text) for text in os.environ[name].split(",")] if name in os.environ else usual
        for jitter in given("JITTER", [30] if quick else [30, 80]):
            for loss in given("LOSS", [10] if quick else [0, 5, 10, 20]):
                for pattern in ("random", "burst") if loss else ("random",):
                    for name, flags in REPAIRS if loss else REPAIRS[:1]:
                        line = subprocess.run(
                            [program, "loss", "--input", path, "--output", out, "--loss", str(loss), "--pattern", pattern, "--jitter",
                             str(jitter), "--rtt", os.environ.get("RTT", "40"), "--seed", "1", *flags],
                            check=True, capture_output=True, text=True).stdout
                        fields = dict(word.split("=") for word in line.split())
                        s, p = score(reference, np.fromfile(out, np.int16).astype(float))
                        print(f"| {loss} % | {pattern} | {jitter} ms | {name} | {fields['concealed']} % | {fields['delay']} ms | "
                              f"{fields['requested']} % | {fields['kbps']} | {s:.3f} | {p:.2f} |", flush=True)
                        if loss == 10 and pattern == "random" and name == "RED 1 + FEC":
                            worst = max(worst, float(fields["concealed"]))
        if worst >= 1.5:
            sys.exit(f"RED and FEC conceal {worst} % of frames at 10 % random loss: 1.5 % is the promise")


main()
