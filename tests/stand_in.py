"""Stand in for Google's benchmark_model, which is not to be had for this machine: its flags, and its lines.

It opens the model by the real LiteRT, runs and times it; what it prints is in the form of the tool's own source, and as
the tool does it sleeps out the interval at which it looks at its memory before it prints. Tests copy it behind a line
that names this Python, and adb pushes it to what stands for a phone.
"""

import os
import statistics
import sys
import time

KNOWN = (
    *("graph", "num_threads", "num_runs", "min_secs", "max_secs", "warmup_runs", "warmup_min_secs"),
    *("report_peak_memory_footprint", "memory_footprint_check_interval_ms", "use_xnnpack", "require_full_delegation"),
    *("input_layer", "input_layer_shape", "input_layer_value_files", "output_filepath"),
)


def usage():
    lines = [f"usage: {sys.argv[0]} <flags>", "Flags:"]
    return "\n".join([*lines, *(f"\t--{name}=\tstring\toptional\tas in the tool" for name in KNOWN)])


def stat(microseconds):
    """One line of StatWithPercentiles."""
    if not microseconds:
        return "count=0 p5=0 median=0 p95=0"
    ranked, count = sorted(microseconds), len(microseconds)
    percentiles = " ".join(f"{name}={ranked[count * q // 100]}" for name, q in (("p5", 5), ("median", 50), ("p95", 95)))
    if ranked[0] == ranked[-1]:
        return f"count={count} curr={microseconds[-1]}{'(all same)' if count > 1 else ''} {percentiles}"
    spread = f"avg={statistics.fmean(microseconds):g} std={statistics.pstdev(microseconds):.0f}"
    return (
        f"count={count} first={microseconds[0]} curr={microseconds[-1]} min={ranked[0]} max={ranked[-1]} "
        f"{spread} {percentiles}"
    )


def repeated(run, *, runs, seconds):
    print(f"INFO: Running benchmark for at least {runs} iterations and at least {seconds:g} seconds")
    found, end = [], time.perf_counter() + seconds
    while len(found) < runs or time.perf_counter() < end:
        begin = time.perf_counter_ns()
        run()
        found.append((time.perf_counter_ns() - begin) // 1000)
    print(f"INFO: {stat(found)}\n")
    return found


def main(argv):
    if argv[:1] == ["--help"]:
        print(usage(), file=sys.stderr)
        return 1
    flags = dict(word.removeprefix("--").split("=", 1) for word in argv)
    print("INFO: STARTING!")
    looking = time.monotonic()
    begin = time.perf_counter_ns()
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = flags.get("use_xnnpack") == "false"
    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if plain else OpResolverType.AUTO
    model = Interpreter(flags["graph"], num_threads=int(flags["num_threads"]), experimental_op_resolver_type=kernels)
    model.allocate_tensors()
    init = (time.perf_counter_ns() - begin) // 1000
    (given,) = model.get_input_details()
    if path := flags.get("input_layer_value_files", "").partition(":")[2]:
        pixels = np.fromfile(path, given["dtype"]).reshape(given["shape"])
        model.set_tensor(given["index"], pixels)
    warm = repeated(model.invoke, runs=int(flags["warmup_runs"]), seconds=float(flags["warmup_min_secs"]))
    steady = repeated(model.invoke, runs=int(flags["num_runs"]), seconds=float(flags["min_secs"]))
    if flags.get("report_peak_memory_footprint") == "true":
        interval = int(flags["memory_footprint_check_interval_ms"]) / 1000
        time.sleep(interval - (time.monotonic() - looking) % interval)
    means = [f"{statistics.fmean(one):g}" if one else "-nan" for one in (warm, steady)]
    print(
        f"INFO: Inference timings in us: Init: {init}, First inference: {warm[0] if warm else 0}, "
        f"Warmup (avg): {means[0]}, Inference (avg): {means[1]}"
    )
    if flags.get("report_peak_memory_footprint") == "true":
        with open("/proc/self/status") as file:
            kilobytes = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
        print(f"INFO: Overall peak memory footprint (MB) via periodic monitoring: {kilobytes / 1024:g}")
    if path := flags.get("output_filepath"):
        with open(path, "wb") as file:
            for one in model.get_output_details():
                file.write(model.get_tensor(one["index"]).tobytes())
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
