#!/usr/bin/env python3
"""What a number of calls at once needs: relays, cores, trunk bandwidth, Redis operations, and what gives out first.

    Perf/capacity.py                         1, 10 and 100 million calls
    Perf/capacity.py --calls 50000 --remote 0 --talk 0.4
    Perf/capacity.py --measure               runs `swiftlet bench relay` and compares its packet with the model's

Costs come from Perf/capacity.json, which names the row of RESULTS.md behind each; on other machines measure those rows again and change the file.
The model is arithmetic, no simulation: a sum over packets, with a target utilisation instead of queues.
"""

import argparse
import json
import math
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
COSTS = {name: value[0] for name, value in json.loads((HERE / "capacity.json").read_text()).items() if name != "about"}

# Bytes on a wire beside the payload.
UDP_IP_ETHERNET = 8 + 20 + 18
SRTP_RTP = 12 + 16
FRAME_HEADER, RECORD_HEADER = 24, 24


def model(calls, options):
    """All figures for `calls` at once."""
    packets_up = calls * 1000 / options.packet_ms
    packets_down = packets_up * options.talk
    payload = options.bitrate * options.packet_ms / 8000 + SRTP_RTP
    # A frame holds what came in one batch for one worker; at most what fits.
    fits = max(1, int((options.mtu - FRAME_HEADER) // (payload + RECORD_HEADER)))
    records = min(fits, options.records)
    frames_up, frames_down = packets_up / records, packets_down / records
    trunk_packet = payload + RECORD_HEADER + (FRAME_HEADER + UDP_IP_ETHERNET) / records

    # Between a full burst and one packet at a time the cost of sending is shared by a train's records.
    up_ns = COSTS["relay_up_ns"] + (COSTS["relay_up_sparse_ns"] - COSTS["relay_up_ns"]) / options.train_records
    first_hop = (packets_up * up_ns + packets_down * COSTS["relay_down_ns"]) / 1e9
    second_hop = (frames_up + frames_down) * options.remote * COSTS["pass_on_frame_ns"] / 1e9
    carried = (packets_up + packets_down) * COSTS["transceiver_packet_ns"] / 2 / 1e9
    codec = (packets_up * COSTS["decode_20ms_ns"] + packets_down * COSTS["encode_20ms_ns"]) * options.packet_ms / 20 / 1e9
    setups = calls / options.call_seconds * COSTS["setup_ns"] / 1e9
    cores = {
        "relay, first hop": first_hop, "relay, second hop": second_hop, "transceiver, packets": carried,
        "transceiver, Opus and turns": codec * options.decoded, "transceiver, call set-up": setups,
    }
    cores = {name: value / options.utilisation for name, value in cores.items()}

    relay_cores = cores["relay, first hop"] + cores["relay, second hop"]
    by_packets = relay_cores / options.relay_cores
    by_flows = calls / options.flows
    wire_up = packets_up * (payload + UDP_IP_ETHERNET) * 8 / 1e9
    wire_down = packets_down * (payload + UDP_IP_ETHERNET) * 8 / 1e9
    trunk = (packets_up + packets_down) * trunk_packet * 8 / 1e9
    # What one relay's network card must carry: clients on one side, trunk on the other, each way.
    by_wire = max(wire_up, wire_down) * 2 / (options.nic * options.utilisation)
    relays = max(by_packets, by_flows, by_wire)
    redis = calls / options.call_seconds + calls / options.refresh
    return {
        "packets": packets_up + packets_down, "cores": cores, "records": records,
        "relays": {"processors": by_packets, "flow tables": by_flows, "network cards": by_wire}, "relays_needed": math.ceil(relays),
        "clients_gbit": (wire_up, wire_down), "trunk_gbit": trunk, "between_regions_gbit": trunk * options.remote,
        "redis": redis, "redis_servers": redis / options.redis,
        "memory_gib": {"flows": calls * COSTS["flow_bytes"] / 2**30, "sessions": calls * COSTS["session_idle_bytes"] / 2**30},
        "transceivers": sum(value for name, value in cores.items() if name.startswith("transceiver")) / options.transceiver_cores,
    }


def show(calls, options):
    result = model(calls, options)
    total = sum(result["cores"].values())
    print(f"\n## {calls:,} calls at once\n")
    print(f"{result['packets'] / 1e6:,.1f} million packets a second, {result['records']} to a trunk frame\n")
    print("| cores | | share |\n|---|---|---|")
    for name, value in result["cores"].items():
        print(f"| {name} | {value:,.0f} | {value / total:.1%} |")
    name, value = max(result["relays"].items(), key=lambda item: item[1])
    print(f"\n- relays of {options.relay_cores} cores: {result['relays_needed']:,}; what gives out first in them: {name} ("
          + ", ".join(f"{key} {need:,.1f}" for key, need in result["relays"].items()) + ")")
    print(f"- transceivers of {options.transceiver_cores} cores: {math.ceil(result['transceivers']):,}")
    up, down = result["clients_gbit"]
    print(f"- clients: {up:,.1f} Gbit/s in, {down:,.1f} out; trunk {result['trunk_gbit']:,.1f}, of it between regions {result['between_regions_gbit']:,.1f}")
    print(f"- Redis: {result['redis']:,.0f} operations a second in pipelines, {result['redis_servers']:.1f} servers of {options.redis:,}")
    print(f"- memory: {result['memory_gib']['flows']:,.1f} GiB of flows, {result['memory_gib']['sessions']:,.0f} GiB of sessions")
    first, value = max(result["cores"].items(), key=lambda item: item[1])
    print(f"- the first bottleneck: {first}, {value / total:.0%} of all processors")


def measure():
    """The model's known-flow packet beside one that is measured now."""
    program = HERE.parent / ".build" / "release" / "swiftlet"
    command = [program, "bench", "relay", "--packets", "200000"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(output, end="")
    worst = 0.0
    for direction, name in (("up", "relay_up_ns"), ("down", "relay_down_ns")):
        found = re.search(rf"^\s*{direction}\s+swiftlet\S*.*?(\d+) ns of CPU", output, re.MULTILINE)
        if not found:
            sys.exit(f"no row '{direction}' in what {program.name} printed")
        ratio = int(found[1]) / COSTS[name]
        worst = max(worst, ratio, 1 / ratio)
        print(f"model {direction}: {COSTS[name]} ns, measured {found[1]} ns, {ratio:.2f} x")
    print("within a factor of two" if worst < 2 else "more than a factor of two apart: another machine, or change capacity.json")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, nargs="*", default=[1_000_000, 10_000_000, 100_000_000])
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--packet-ms", type=float, default=20, dest="packet_ms")
    parser.add_argument("--bitrate", type=float, default=32_000, help="of Opus, bit/s")
    parser.add_argument("--talk", type=float, default=0.5, help="share of the time in which the answer sounds: nothing is sent else")
    parser.add_argument("--decoded", type=float, default=1.0, help="share of calls whose audio is decoded and encoded here")
    parser.add_argument("--remote", type=float, default=0.5, help="share of calls that take a second hop")
    parser.add_argument("--records", type=float, default=6, help="datagrams of one batch for one worker")
    parser.add_argument("--train-records", type=float, default=16, dest="train_records", help="datagrams that leave in one send")
    parser.add_argument("--mtu", type=int, default=1400)
    parser.add_argument("--utilisation", type=float, default=0.5, help="of processors and network cards at the busiest hour")
    parser.add_argument("--relay-cores", type=int, default=16, dest="relay_cores")
    parser.add_argument("--transceiver-cores", type=int, default=32, dest="transceiver_cores")
    parser.add_argument("--flows", type=int, default=262_144, help="of one relay's table")
    parser.add_argument("--nic", type=float, default=25, help="Gbit/s of a relay")
    parser.add_argument("--call-seconds", type=float, default=180, dest="call_seconds")
    parser.add_argument("--refresh", type=float, default=30, help="seconds after which a flow's entry in Redis is written again")
    parser.add_argument("--redis", type=int, default=200_000, help="operations a second of one server")
    options = parser.parse_args()
    if options.measure:
        return measure()
    for calls in options.calls:
        show(calls, options)


if __name__ == "__main__":
    main()
