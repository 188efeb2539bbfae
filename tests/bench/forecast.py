#!/usr/bin/env python3
"""Fits and forecasts beside statsmodels, in the same run: `make bench-forecast` runs it.

forecast.py BENCH [--json]: BENCH is the built example `bench` of the crate autoscale. Times are processor time, so others
at work on the machine do not count. Exit code 1 where one of the stated figures is missed.
"""
import json
import math
import random
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np
import statsmodels
from statsmodels.tsa.arima.estimators.innovations import innovations_mle
from statsmodels.tsa.statespace.sarimax import SARIMAX

SEASON, FITTED, SCORED, WINDOW_S = 48, 1344, 336, 1800
ORDER, SEASONAL = (1, 0, 1), (0, 0, 1, SEASON)  # of what is differenced once by a window and once by a season
LEAST_FASTER, MOST_RMSE, MOST_OBSERVE_S = 50.0, 0.01, 1.0
# Share of one processor that the refits of all services may take.
MOST_REFITS = 0.01


def load():
    """Days of half hours: a double wave, weekends, a level that wanders, noise that grows with the load."""
    rng, level, rows = random.Random(7), 0.0, []
    for t in range(FITTED + SCORED):
        level = 0.95 * level + rng.gauss(0, 300)
        day = 2 * math.pi * (t % SEASON) / SEASON
        mean = 15000 - 6000 * math.cos(day) + 2500 * math.sin(2 * day) - (1500 if t // SEASON % 7 > 4 else 0) + level
        rows.append(max(0, round(rng.gauss(mean, 3 * math.sqrt(max(mean, 1))))))
    return rows


def theirs(y):
    """Exact maximum likelihood by innovations, the fastest that statsmodels has, and forecasts of its Kalman filter."""
    y = np.asarray(y, dtype=float)
    w = np.diff(y)
    w = w[SEASON:] - w[:-SEASON]
    window = w[: FITTED - SEASON - 1]
    begun = time.process_time()
    found, _ = innovations_mle(window, order=ORDER, seasonal_order=SEASONAL, demean=False)
    took = time.process_time() - begun
    model = SARIMAX(w, order=ORDER, seasonal_order=SEASONAL, trend="n")
    expected = model.filter(found.params).predict()
    t = np.arange(FITTED, len(y))
    return took * 1e3, expected[t - SEASON - 1] + y[t - 1] + y[t - SEASON] - y[t - SEASON - 1]


def main():
    bench, y = sys.argv[1], load()
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as trace:
        trace.write("time_unix_s,requests\n" + "".join(f"{WINDOW_S * t},{v}\n" for t, v in enumerate(y)))
        trace.flush()
        words = [bench, trace.name, str(SEASON), str(FITTED)]
        ours = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    warnings.simplefilter("ignore")
    fit_ms, forecasts = theirs(y)
    rmse = lambda f: float(np.sqrt(np.mean((np.asarray(y[FITTED:]) - np.asarray(f, dtype=float)) ** 2)))
    services, exact = ours["services"], ours["exact"]
    refits = services["refits_s_per_window"] / services["window_s"]
    report = {
        "statsmodels": {"version": statsmodels.__version__, "fit_ms": fit_ms, "rmse": rmse(forecasts)},
        "exact": {k: exact[k] for k in ("fit_ms", "refit_ms", "model")} | {"rmse": rmse(exact["forecasts"])},
        "conditional": {k: ours["conditional"][k] for k in ("fit_ms", "refit_ms", "model")}
        | {"rmse": rmse(ours["conditional"]["forecasts"])},
        "faster": fit_ms / max(exact["fit_ms"], exact["refit_ms"]),
        "services": services | {"refits_share_of_a_processor": refits},
    }
    held = {
        f"exact fit at least {LEAST_FASTER:.0f} times faster": report["faster"] >= LEAST_FASTER,
        "RMSE within 1 %": report["exact"]["rmse"] <= (1 + MOST_RMSE) * report["statsmodels"]["rmse"],
        f"a window of 10,000 services within {MOST_OBSERVE_S:.0f} s": services["observe_s"] <= MOST_OBSERVE_S,
        f"their refits within {100 * MOST_REFITS:.0f} % of a processor": refits <= MOST_REFITS,
    }
    report["held"] = held
    if "--json" in sys.argv:
        print(json.dumps(report, indent=2))
    else:
        print(f"SARIMA(1,1,1)(0,1,1){SEASON} on {FITTED} windows, forecasts of the next {SCORED}; processor time\n")
        print(f"{'':34}{'FIT MS':>10}{'REFIT MS':>10}{'RMSE':>10}")
        for name, row in [
            (f"statsmodels {statsmodels.__version__}, exact", report["statsmodels"]),
            ("ours, exact", report["exact"]),
            ("ours, conditional", report["conditional"]),
        ]:
            refit = f"{row['refit_ms']:.1f}" if "refit_ms" in row else "-"
            print(f"{name:34}{row['fit_ms']:>10.1f}{refit:>10}{row['rmse']:>10.1f}")
        print(f"\n{services['services']} services, all models combined, season of {services['seasons'][0]} windows:")
        print(f"  one window of each      {services['observe_s']:.2f} s")
        print(f"  memory of each          {services['bytes_each'] / 1024:.0f} KiB")
        print(
            f"  refit of one            {services['refit_ms']:.0f} ms every {services['refit_every_windows']} windows: "
            f"{services['refits_s_per_window']:.1f} s per window for all, {100 * refits:.2f} % of a processor\n"
        )
        for claim, kept in held.items():
            print(f"{'held  ' if kept else 'MISSED'}  {claim}")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
