"""launch.py as a user runs it: in a process of its own, from the command line."""

import importlib
import json
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest

from genjax.errors import UserError
from genjax.runner.config import FIELDS
from genjax.runner.family import completed, find_family
from genjax.runner.fields import check_idle, flatten, forget_idle, merged
from genjax.runner.run import Run
from genjax.runner.train import train
from genjax.train.parallel import Parallel
from tests.conftest import ROOT

CONFIGS = sorted(p.stem for p in (ROOT / "configs").glob("*.py"))

# (arguments, what the one line must say)
MISTAKES = [
    (["--config.optim.lrr=1"], "config.optim.lrr .* nearest is config.optim.lr"),
    (["--config.batchsize=12"], "config.batchsize .* nearest is config.batch_size"),
    (["--config.lr=1"], "config.lr .* nearest is config.optim.lr"),
    (["--config.batch_size=abc"], "config.batch_size=abc"),
    (["--config.optim.lr=None"], "config.optim.lr=None"),
    (["--config.optim=3"], "config.optim=3"),
    (["--config.optim.lr"], "config.optim.lr"),
    (["--config.optim.lr=-1"], "config.optim.lr=-1.0 must be at least 0"),
    (["--config.optim.lr=nan"], "config.optim.lr=nan must be .* finite"),
    (["--config.batch_size=0"], "config.batch_size=0 must be at least 1"),
    (["--config.ema.decay=1.5"], r"config.ema.decay=1.5 must be in \[0, 1\)"),
    (["--config.parallel=pmp"], "did you mean 'pmap'"),
    (["--config.optim.name=adm"], "config.optim.name='adm' .* did you mean 'adam'"),
    (["--config.data.pixels=binarised"], "config.data.pixels"),
    (["--config.objective.likelihood=gausian"], "did you mean 'gaussian'"),
    (["--config.model.name=cnov"], "did you mean 'conv'"),
    (["--config.experiment=vea"], "config.experiment='vea'"),
    (["--config.experiment=gan"], "config.experiment='gan' must be 'vae', the family of the file"),
    (["--config.data.image_shape=(28,28)"], "config.data.image_shape"),
    (["--config.data.image_shape=(28,28.5,1)"], "config.data.image_shape"),
    (["--config.data.image_shape=(30,30,1)"], "image_shape=.*multiples of 4"),
    (["--config.model.latent_dim=0"], "config.model.latent_dim=0 must be at least 1"),
    (["--config.model.encoder_features=(32,1.5)"], "config.model"),
    (["--config.batch_size=12"], "config.batch_size=12 must be a multiple of devices .* 8"),
    (["--config.optim.accumulate_steps=3"], "config.batch_size=128"),
    (["--config.num_devices=9"], "config.num_devices=9, but there are 8"),
    (["--config.checkpoint.best_metric=eval/elbo"], "checkpoint.best_metric='eval/elbo' .*eval/"),
    (["--config.steps_per_call=7"], "config.steps_per_call=7 must divide"),
    (["--config.sample.seed=5000000000"], r"config.sample.seed=5000000000 must be in \[0, 2\^32\)"),
    (["--config.model.encoder_hidden=0"], "config.model.encoder_hidden=0 must be at least 1"),
    (["--config.model.encoder_features=(0,8)"], r"encoder_features=\(0, 8\) must be at least 1"),
    (["--config.optim.eps=-1.0"], r"config.optim.eps=-1.0 must be in \(0, 1\)"),
    (["--config.optim.warmup_steps=1000"], "warmup_steps=1000 must be less than num_train_steps"),
    (["--config.optim.weight_decay=0.1"], "weight_decay=0.1 must be 0 with .*optim.name=adam"),
    (["--config.objective.beta=inf"], "config.objective.beta=inf must be .* finite"),
    (["--config.data.pixels=symmetric"], "config.data.pixels='symmetric' must be .*in .0, 1"),
    (["--step=²", "--mode=eval"], "--step=² must be a number"),
    (["--config.parallel=fdsp"], "did you mean 'fsdp'"),
    (["--config.data.loader=gran"], "config.data.loader='gran' .* did you mean 'grain'"),
    (["--config.data.num_workers=-1"], "config.data.num_workers=-1 must be at least 0"),
    (["--config.data.bad_images=skp"], "config.data.bad_images='skp' .* did you mean 'skip'"),
    (["--config.data.loader=grain", "--config.data.on_device=True"], "config.data.on_device=True"),
    (["--config.nonfinite.policy=raize"], "did you mean 'raise'"),
    (["--config.nonfinite.limit=0"], "config.nonfinite.limit=0 must be at least 1"),
    (["--config.requeue_exit_code=256"], "config.requeue_exit_code=256 must be in .0, 255."),
    (["--config.requeue_exit_code=yes"], "config.requeue_exit_code=yes"),
    (["--config.batch_size=2048"], "'digits' has 1415 examples .*batch_size=2048"),
    (["--config.data.train_split=train[:0]"], r"empty split 'train\[:0\]'"),
    (["--config.data.eval_split=train[:x]"], r"split 'train\[:x\]' is not one"),
    (["--config.data.eval_split=train+tset"], "no split 'tset'; did you mean 'test'"),
    (["--process_id=1"], "--process_id=1 .*--coordinator"),
    (["--coordinator=localhost"], "--coordinator=localhost .* host:port"),
    (["--num_processes=0"], "num_processes"),
    (["--config.data.name=mnist", "--config.data.data_dir=/nowhere"], "--mode=prepare"),
    (["--config.data.name=mnist", "--config.data.data_dir=gs://b"], "data_dir=gs://b is not a"),
    (["--config.data.name=folder:/nowhere"], "no folder /nowhere"),
    (["--config.ema.warmup=False"], "ema.warmup=False must be True with .*ema.decay=0.0"),
    (["--config.optim.momentum=0.5"], "optim.momentum=0.5 must be 0.9 with .*optim.name=adam"),
    (["--config.model.name=mlp", "--config.model.encoder_hidden=8"], "encoder_hidden=8 must be 16"),
    (["--config.data.num_workers=2"], "num_workers=2 must be 0 with config.data.loader=array"),
    (["--config.data.bad_images=skip"], "bad_images='skip' must be 'fail' with .*name=digits"),
    (["--config.eval.num_samples=0", "--config.eval.seed=3"], "eval.seed=3 must be 0 with"),
    (["--config.checkpoint.best_mode=max"], "best_mode='max' must be 'min' with"),
    (["--config.nonfinite.limit=3"], "nonfinite.limit=3 must be 10 with .*policy=raise"),
    (["--config.optim.name=airbench"], "optim.name='airbench' must be another"),
    (
        ["--config=configs/diffusion_digits.py", "--config.sample.guidance_interval=(5.0,1.0)"],
        "sample.guidance_interval=.* low < high",
    ),
    (
        ["--config=configs/diffusion_digits.py", "--config.sample.guidance_interval=(5.0,)"],
        "sample.guidance_interval=.* low < high",
    ),
    (
        ["--config=configs/diffusion_digits.py", "--config.sample.eta=0.5"],
        "sample.eta=0.5 must be 0 with config.sample.sampler=heun",
    ),
    (
        ["--config=configs/diffusion_digits.py", "--config.process.name=vp"]
        + ["--config.process.sigma_max=3.0"],
        "process.sigma_max is not a field of config.process.name=vp, but of edm and ve",
    ),
    (
        ["--config=configs/diffusion_digits.py", "--config.model.depth", "3"],
        "model.depth is not a field of config.model.name=unet, but of dit",
    ),
    (
        ["--config=configs/diffusion_digits.py", "--config.process.name", "vp"]
        + ["--config.process.beta_mx=3.0"],
        "beta_mx is not a field of config.process.name=vp; the nearest is process.beta_max",
    ),
    (
        ["--config=configs/pixelcnn_digits.py", "--config.model.name=pixelsnial"]
        + ["--config.model.heads=2"],
        "config.model.name='pixelsnial' is not known; did you mean 'pixelsnail'",
    ),
    (
        ["--config=configs/style_w2.py:smoke", "--config.num_train_steps=3"]
        + ["--config.size_steps=(1,2)"],
        "num_train_steps=3 must be 1000 with config.size_steps",
    ),
    (["--config=configs/style_wct.py", "--config.optim.lr=0.1"], "optim.lr=0.1 must be 0.001 with"),
    (["--config.data.train_split=trian"], "did you mean 'train'"),
    (["--config=configs/vae_digit.py"], "no file configs/vae_digit.py; .*vae_digits.py"),
    (["--config=configs/vae_digits.py:smok"], "'smok'.*smoke"),
    (["--mode=trian"], "--mode=trian .* train"),
    (["--mode=eval"], "holds no run; train it first"),
    (["--mode=eval", "--config.num_seeds=2"], "name one of them.*--config.seed=0"),
    (["--mode=sample", "--step=first"], "--step=first"),
    (["--wrkdir=x"], "wrkdir.*workdir"),
    (["train"], "'train' is not a flag"),
]

# Those that need a process of their own: JAX joins others once, a config file that fails stays so.
MISTAKES_ALONE = [
    (["--config=BROKEN"], "--config: SyntaxError"),
    (["--config=EMPTY"], "--config: AttributeError.*get_config"),
    (["--config=~/none.py"], "there is no file /.*/none.py"),
    (["--coordinator=localhost:1", "--num_processes=2"], "--process_id"),
    (["--coordinator=localhost:1", "--num_processes=2", "--process_id=2"], "process_id=2"),
]

# Few seconds of compiling: dense layers, and no images that are judged or drawn.
LITTLE = [
    "--config.model.name=mlp",
    "--config.model.encoder_features=(8,)",
    "--config.model.decoder_features=(8,)",
    "--config.eval.num_samples=0",
    "--config.sample_every_steps=0",
]

# launch.py in a process that tells how many programs it compiled.
COUNTING = """
import atexit, runpy, sys
import jax

compiled = []

def listen(event, seconds, **kwargs):
    if event == "/jax/core/compile/backend_compile_duration":
        compiled.append(event)

jax.monitoring.register_event_duration_secs_listener(listen)
atexit.register(lambda: print("compiled:", len(compiled)))
sys.argv[0] = "launch.py"
runpy.run_path("launch.py", run_name="__main__")
"""

# Many command lines one after another in one process, as if each were launch.py's own; a line of
# JSON for each: exit code, stderr, programs compiled.
IN_ONE_PROCESS = """
import contextlib, io, json, sys
import jax
from absl import flags

import launch
from genjax.runner.command import run_main

compiled = []

def listen(event, seconds, **kwargs):
    if event == "/jax/core/compile/backend_compile_duration":
        compiled.append(event)

jax.monitoring.register_event_duration_secs_listener(listen)
for arguments in json.loads(sys.argv[1]):
    for name in list(flags.FLAGS):
        if name.startswith("config."):
            delattr(flags.FLAGS, name)  # an override of the command line before
        else:
            flags.FLAGS[name].unparse()
    flags.FLAGS.unparse_flags()
    sys.argv = ["launch.py", *arguments]
    code, errors = 0, io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            run_main(launch.main, launch.DEFAULT_CONFIG)
        except SystemExit as exit:
            code = exit.code
    print(json.dumps([code, errors.getvalue(), len(compiled)]), flush=True)
"""


def one_line(process):
    assert process.returncode == 2, process.stderr
    lines = process.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), process.stderr
    return lines[0]


def command_line(args, tmp_path):
    """The arguments of a mistake, on the default config if it names none."""
    for name in ("broken", "empty"):
        args = [a.replace(name.upper(), str(tmp_path / f"{name}.py")) for a in args]
    if not any(a.startswith("--config=") for a in args):
        args = ["--config=configs/vae_digits.py", *args]
    return [*args, f"--workdir={tmp_path}/w"]


def test_a_mistake_is_one_line_and_exit_code_2_and_compiles_nothing(python, tmp_path):
    lines = [command_line(args, tmp_path) for args, _ in MISTAKES]
    done = python(IN_ONE_PROCESS, json.dumps(lines), devices=8)
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(x) for x in done.stdout.splitlines()]
    for (args, said), (code, errors, compiled) in zip(MISTAKES, outcomes, strict=True):
        process = subprocess.CompletedProcess(args, code, "", errors)
        assert re.search(said, one_line(process)), (args, errors)
        assert compiled == 0, args
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("args, said", MISTAKES_ALONE)
def test_a_mistake_alone_is_one_line_too(launch, tmp_path, args, said):
    (tmp_path / "broken.py").write_text("def get_config(:")
    (tmp_path / "empty.py").write_text("x = 1")
    assert re.search(said, one_line(launch(*command_line(args, tmp_path))))
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "module, args, expected",
    [
        ("benchmarks.floor", ["--config.lr=1"], "config.lr .* nearest is config.optim.lr"),
        ("faults.retention", ["--svaes=3"], "svaes"),
    ],
)
def test_so_it_is_for_the_programs_beside_launch(module, args, expected):
    command = [sys.executable, "-m", module, *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert re.search(expected, one_line(done))


@pytest.mark.parametrize(
    "name, changes, reset",
    [
        ("style_gatys", {"optim.name": "lbfgs", "objective.clip": False}, {"optim.eps": 1e-8}),
        ("iwae_mnist", {"model.name": "conv"}, {"model.activation": "relu"}),
        ("edm_cifar10", {"model.conditional": False}, {"objective.label_dropout": 0.0}),
        ("ddpm_cifar10", {"ema.half_life_images": 1000.0}, {"ema.decay": 0.0}),
    ],
)
def test_the_options_of_what_the_command_line_replaces_are_forgotten(name, changes, reset):
    config = importlib.import_module(f"configs.{name}").get_config()
    config.update_from_flattened_dict(changes)
    fields = merged(FIELDS, find_family(config.experiment).FIELDS)
    with pytest.raises(UserError, match="it has no effect there"):
        check_idle(config, fields)
    forget_idle(config, fields, changes, keep=changes)
    check_idle(config, fields)
    assert reset.items() <= flatten(config).items()


def test_what_is_right_does_compile(python, tmp_path):
    little = [*LITTLE, "--config.num_train_steps=1", "--config.eval_every_steps=0"]
    config = "--config=configs/vae_digits.py:smoke"
    out = python(COUNTING, config, f"--workdir={tmp_path}", *little)
    assert out.returncode == 0 and int(out.stdout.split()[-1]) > 0, out.stderr


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "style_wct"])
def test_every_config_builds(name):
    """In shapes: data, network, step, evaluation. The one left out trains nothing.

    `python -m benchmarks.smokes` runs all of them.
    """
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config("smoke")
    assert flatten(config).keys() == flatten(module.get_config()).keys()
    built = Run.build(completed(config), Parallel.create("jit", 1))
    assert sum(x.size for x in jax.tree.leaves(jax.eval_shape(built.init).params)) > 0


# One of each family, but for those whose own tests run a config from end to end.
SMALL = (
    "cnn_digits",
    pytest.param("glow_mnist", marks=pytest.mark.long),
    pytest.param("meanflow_mnist", marks=pytest.mark.long),
    "pixelcnn_digits",
    "style_gatys",
    "vae_digits",
    pytest.param("vdvae_mnist", marks=pytest.mark.long),
)


@pytest.mark.parametrize("name", SMALL)
def test_a_config_of_each_family_trains_small_evaluates_and_draws(tmp_path, name):
    config = importlib.import_module(f"configs.{name}").get_config("smoke")
    source = {"config_file": f"configs/{name}.py:smoke", "arguments": ""}
    train(config, tmp_path, source)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["config_file"] == source["config_file"]
    assert any(key.startswith("eval/") for key in report)
    if Run.build(completed(config)).family.sample is not None:
        assert list((tmp_path / "samples").glob("*.png"))
    jax.clear_caches()  # the programs of all take gigabytes


def test_no_family_is_left_out():
    of = lambda name: importlib.import_module(f"configs.{name}").get_config().experiment
    own = {"adain", "diffusion", "feedforward_style", "gan", "vqvae", "wct"}
    names = [getattr(name, "values", (name,))[0] for name in SMALL]
    assert {of(name) for name in names} == {of(name) for name in CONFIGS} - own


@pytest.mark.parametrize("config", CONFIGS)
def test_every_config_records_what_it_reproduces(config):
    docstring = (ROOT / "configs" / f"{config}.py").read_text().split('"""')[1]
    for word in ("python launch.py", "Hardware", "Time", "Number", "Paper"):
        assert word in docstring, f"{config} does not say its {word}"


def test_the_same_command_resumes_and_another_config_is_refused(launch, tmp_path):
    flags = ["--config=configs/vae_digits.py:smoke", f"--workdir={tmp_path}", *LITTLE]
    assert launch(*flags, "--config.num_train_steps=4").returncode == 0
    out = launch(*flags)
    assert out.returncode == 0 and "resuming" in out.stderr and "at step 4" in out.stderr
    steps = [json.loads(x)["step"] for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == [2, 4, 6, 8]
    refused = one_line(launch(*flags, "--config.optim.lr=0.5", "--config.model.latent_dim=3"))
    assert "config.optim.lr: 0.002 there, 0.5 now" in refused
    assert "config.model.latent_dim: 2 there, 3 now" in refused


def test_the_workdir_is_named_after_the_config(launch, tmp_path):
    out = launch("--config=configs/vae_digits.py:smoke", cwd=tmp_path, env={"PYTHONPATH": ROOT})
    assert out.returncode != 0  # configs/ is looked up where the user stands
    out = launch(f"--config={ROOT}/configs/vae_digits.py:smoke", *LITTLE, cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert (tmp_path / "runs" / "vae_digits_smoke" / "report.json").exists()


def test_neither_tensorflow_nor_torch_is_ever_looked_for(launch, tmp_path):
    """Training (which evaluates) and sampling in a Python that cannot find the two."""
    (tmp_path / "sitecustomize.py").write_text(
        """
import sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, *args):
        if name in ("tensorflow", "torch"):
            return None  # as on a machine that does not have them
        return PathFinder.find_spec(name, *args)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding

import atexit

@atexit.register
def report():
    loaded = sorted({m.split(".")[0] for m in sys.modules} & {"tensorflow", "torch", "keras"})
    print("loaded:", loaded, file=sys.stderr)
"""
    )
    flags = ["--config=configs/vae_digits.py:smoke", f"--workdir={tmp_path}/w", *LITTLE]
    env = {"PYTHONPATH": str(tmp_path), "GENJAX_CACHE": str(tmp_path / "cache")}
    for mode in ("train", "sample"):
        out = launch(*flags, f"--mode={mode}", env=env)
        assert out.returncode == 0, out.stderr
        assert "loaded: []" in out.stderr


def test_a_running_run_is_left_alone_and_a_signal_saves_it(launch, tmp_path):
    flags = [
        "--config=configs/vae_digits.py:smoke",
        f"--workdir={tmp_path}",
        *LITTLE,
        "--config.num_train_steps=100000",
        "--config.eval_every_steps=0",
        "--config.checkpoint_every_steps=0",
        "--config.requeue_exit_code=75",
    ]
    command = [sys.executable, str(ROOT / "launch.py"), *flags]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "metrics.jsonl"
    deadline = time.time() + 120
    while time.time() < deadline and not (metrics.exists() and metrics.read_text().count("\n") > 3):
        time.sleep(0.1)
    assert f"in use by process {process.pid}" in one_line(launch(*flags))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    step = int(re.search(r"stopped by SIGTERM at step (\d+), saved", errors)[1])
    assert [p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()] == [str(step)]
    last = json.loads(metrics.read_text().splitlines()[-1])["step"]
    assert step - 2 <= last <= step


@pytest.mark.parametrize("process_id", [0, 1])
def test_a_process_that_waits_in_vain_says_so(launch, tmp_path, process_id):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = [f"--coordinator=localhost:{port}", "--num_processes=2", f"--process_id={process_id}"]
    out = launch(*flags, "--start_seconds=2", f"--workdir={tmp_path}/w")
    assert f"came within 2 s (--coordinator=localhost:{port}" in one_line(out)
    assert not (tmp_path / "w").exists()
