"""Every test session has a cache of its own, so that nothing on the machine can help it."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Before any of our modules looks: workers of pytest-xdist share one cache.
if "GENJAX_CACHE" not in os.environ:
    os.environ["GENJAX_CACHE"] = tempfile.mkdtemp(prefix="genjax-test-cache-")
    atexit.register(shutil.rmtree, os.environ["GENJAX_CACHE"], ignore_errors=True)
os.environ["TFDS_DATA_DIR"] = os.environ["GENJAX_CACHE"] + "/no-datasets"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # but see `compiled_as_for_users`
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["GENJAX_CACHE"] + "/xla"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

# Under nohup, or in a script's background, these are ignored, and by the processes we start, too.
for _signum, _handler in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
):
    if signal.getsignal(_signum) is signal.SIG_IGN:
        signal.signal(_signum, _handler)

from jaxtyping import install_import_hook  # noqa: E402

import tests.typecheck  # noqa: E402, F401  (the hook finds it as an attribute of `tests`)

# Calls are checked against the annotated shapes and types.
install_import_hook(["genjax", "experiments"], "tests.typecheck.check")

import jax  # noqa: E402
import pytest  # noqa: E402


def pytest_collection_modifyitems(items):
    """The fault suites come first: as the last ones they would keep the other worker waiting."""
    items.sort(key=lambda item: "tests/faults/" not in item.nodeid)


@pytest.fixture(autouse=True)
def compiled_as_for_users(request, monkeypatch):
    """XLA compiles twice as fast without its optimizations. Tests of bits are marked: they want the
    programs that users run, in this process and in those they start."""
    if not request.node.get_closest_marker("optimized"):
        yield
        return
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module", autouse=True)
def programs_are_forgotten():
    """Between modules, when they have come to gigabytes."""
    yield
    statm = Path("/proc/self/statm")  # of Linux
    if statm.exists() and int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > 2**31:
        jax.clear_caches()


@pytest.fixture
def launch():
    """Runs launch.py as a user does; returns the finished process."""

    def run(*args, devices=1, cwd=ROOT, env=None):
        flag = f"--xla_force_host_platform_device_count={devices}"
        return subprocess.run(
            [sys.executable, str(ROOT / "launch.py"), *map(str, args)],
            cwd=cwd,
            env={**os.environ, "XLA_FLAGS": flag, **(env or {})},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def python():
    """Runs a piece of Python in a process of its own, on so many virtual devices."""

    def run(code, *args, devices=1):
        flag = f"--xla_force_host_platform_device_count={devices}"
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, args)],
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": flag, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def start():
    """Starts a piece of Python in a process of its own, which a test then does things to."""
    processes = []

    def run(code, *args):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, args)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def smoke_config():
    """The default config at its smallest, with overrides; by default it judges no samples.

    Its network is of dense layers, which compile in a quarter of the time.
    """
    from configs import vae_digits

    def config(**overrides):
        config = vae_digits.get_config("smoke")
        network = {
            "name": "mlp",
            "encoder_features": (8,),
            "decoder_features": (8,),
            "encoder_hidden": 16,
        }
        network = {f"model.{field}": value for field, value in network.items()}
        config.update_from_flattened_dict({"eval.num_samples": 0, **network, **overrides})
        return config

    return config
