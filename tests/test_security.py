"""Our source code runs nothing that it reads, and extracts no archive to paths in the archive.

Each rule is about a call or an import in the syntax tree, with names followed through imports, so
that a comment does not trigger it and `from os import system as s` does.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHECKED = ("genjax", "experiments", "configs", "benchmarks", "faults", "launch.py")
DOWNLOADS = Path("genjax/download.py")  # verifies SHA-256

RUNS_WHAT_IT_READS = ("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal")
FORBIDDEN_CALLS = {
    **{name: "runs text as code" for name in ("eval", "exec", "compile", "__import__")},
    **{f"builtins.{name}": "runs text as code" for name in ("eval", "exec", "compile")},
    **{
        f"yaml.{name}": "builds any object that a file names; use yaml.safe_load"
        for name in ("load", "load_all", "full_load", "unsafe_load", "unsafe_load_all")
    },
    "torch.load": "unpickles",
    "joblib.load": "unpickles",
    "pandas.read_pickle": "unpickles",
    "numpy.lib.format.read_array": "may unpickle; use numpy.load with allow_pickle=False",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "subprocess.getoutput": "runs a shell",
    "subprocess.getstatusoutput": "runs a shell",
    "tempfile.mktemp": "names a file that another can make first; use mkstemp",
}
NETWORK = ("urllib.request", "requests", "httpx", "aiohttp", "urllib3", "ftplib")
EXTRACTS = ("extractall", "extract", "unpack_archive")


def faults(source, path=Path("genjax/any.py")):
    """Returns ["path:line: what and why"] of Python source text at `path`, relative to the root."""
    tree = ast.parse(source)
    names = _imported_names(tree)
    found = []
    for node in ast.walk(tree):
        for what in _faults_of(node, names, path):
            found.append(f"{path}:{node.lineno}: {what}")
    return found


def _imported_names(tree):
    """Returns what the names bound by imports stand for: {"np": "numpy", "sh": "os.system"}."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _full_name(node, names):
    """Returns the dotted name of an expression, its first part resolved; "" for a call's value."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_full_name(node.value, names)}.{node.attr}"
    return ""


def _faults_of(node, names, path):
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    else:
        modules = []
    if any(module.split(".")[0] in RUNS_WHAT_IT_READS for module in modules):
        yield f"imports {modules[0]}, which runs what it reads"
    if path != DOWNLOADS and any(_below(module, NETWORK) for module in modules):
        yield f"imports {modules[0]}; files come over the network through {DOWNLOADS} alone"

    full = _full_name(node, names) if isinstance(node, ast.Name | ast.Attribute) else ""
    # Not only as a call: `run = os.system` is enough.
    if full in FORBIDDEN_CALLS and isinstance(node.ctx, ast.Load):
        yield f"{full}: {FORBIDDEN_CALLS[full]}"

    if not isinstance(node, ast.Call):
        return
    called = _full_name(node.func, names)
    last = called.rpartition(".")[2]
    keywords = {k.arg: k.value for k in node.keywords}
    if "allow_pickle" in keywords and not _is(keywords["allow_pickle"], False):
        yield f"{called}: allow_pickle must be False"
    if called in ("numpy.load", "jax.numpy.load") and "allow_pickle" not in keywords:
        yield f"{called}: say allow_pickle=False"
    if called in ("importlib.import_module", "builtins.__import__") and any(
        isinstance(a, ast.Constant) and str(a.value).split(".")[0] in RUNS_WHAT_IT_READS
        for a in node.args
    ):
        yield "imports by name what runs what it reads"
    if called.startswith("subprocess.") and not _is(keywords.get("shell"), False, None):
        yield f"{called}: shell"
    if last in EXTRACTS and not _is_data_filter(keywords.get("filter")):
        yield f'{last}: writes where the archive says; filter="data"'
    if last == "urlretrieve" and path != DOWNLOADS:
        yield f"{called}: files come over the network through {DOWNLOADS} alone"


def _below(module, packages):
    return any(module == p or module.startswith(p + ".") for p in packages)


def _is(node, *values):
    """Tells whether an argument is one of the constants; None stands for a missing argument."""
    if node is None:
        return None in values
    return isinstance(node, ast.Constant) and node.value in values


def _is_data_filter(node):
    return isinstance(node, ast.Constant) and node.value == "data"


def _files():
    for name in CHECKED:
        path = ROOT / name
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


def test_no_file_of_ours_has_a_fault():
    files = list(_files())
    assert len(files) > 30 and ROOT / DOWNLOADS in files  # the right files are checked
    found = [f for file in files for f in faults(file.read_text(), file.relative_to(ROOT))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "snippet",
    [
        "import pickle",
        "import pickle as p",
        "import cPickle",
        "import _pickle",
        "import dill",
        "import cloudpickle",
        "import shelve",
        "import marshal",
        "from pickle import loads",
        "from pickle import load as read",
        "def f():\n    import pickle",
        "import importlib\nimportlib.import_module('pickle')",
        "__import__('pickle')",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import numpy as np\nnp.load(f, allow_pickle=flag)",
        "import numpy as np\nnp.load(f)",
        "from numpy import load\nload(f)",
        "import numpy\nnumpy.load(f, mmap_mode='r')",
        "import numpy as np\nnp.lib.format.read_array(f)",
        "np.lib.format.open_memmap(f, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
        "compile(text, 'f', 'exec')",
        "run = eval",
        "import builtins\nbuiltins.eval(text)",
        "from builtins import exec as run\nrun(text)",
        "import yaml\nyaml.load(f)",
        "import yaml\nyaml.load(f, Loader=yaml.FullLoader)",
        "from yaml import unsafe_load\nunsafe_load(f)",
        "import torch\ntorch.load(f)",
        "import torch as t\nt.load(f, weights_only=False)",
        "import joblib\njoblib.load(f)",
        "from joblib import load as read\nread(f)",
        "import tarfile\ntarfile.open(f).extractall(to)",
        "with open_archive() as a:\n    a.extractall(to, filter='fully_trusted')",
        "archive.extractall(to, filter=None)",
        "archive.extract(member, to)",
        "import zipfile\nzipfile.ZipFile(f).extractall(to)",
        "import shutil\nshutil.unpack_archive(f, to)",
        "from shutil import unpack_archive as u\nu(f, to)",
        "import os\nos.system(command)",
        "from os import system as s\ns(command)",
        "import os\nrun = os.system",
        "import os\nos.popen(command)",
        "import subprocess\nsubprocess.run(command, shell=True)",
        "import subprocess as sp\nsp.Popen(command, shell=flag)",
        "from subprocess import check_output\ncheck_output(command, shell=1)",
        "import subprocess\nsubprocess.getoutput(command)",
        "import tempfile\ntempfile.mktemp()",
        "from tempfile import mktemp\nmktemp()",
        "import urllib.request",
        "from urllib import request",
        "from urllib.request import urlopen",
        "import requests",
        "from requests import get",
        "import httpx",
        "thing.urlretrieve(url)",
    ],
)
def test_each_kind_of_fault_is_found(snippet):
    assert faults(snippet), snippet


@pytest.mark.parametrize(
    "snippet",
    [
        "import numpy as np\nnp.load(f, allow_pickle=False)",
        "import numpy as np\nnp.load(f, mmap_mode='r', allow_pickle=False)",
        "import re\nre.compile(pattern)",
        "model.eval()",
        "jax.jit(f).lower(x).compile()",
        "parallel.compile(step)",
        "import yaml\nyaml.safe_load(f)",
        "import pickletools\npickletools.genops(f)",
        "import json\njson.load(f)",
        "archive.extractall(to, filter='data')",
        "archive.extractfile(member).read()",
        "import subprocess\nsubprocess.run([a, b], shell=False)",
        "import subprocess\nsubprocess.run([a, b])",
        "import tempfile\ntempfile.mkdtemp()",
        "import urllib.parse",
        "'eval(text); import pickle'  # os.system",
        "class A:\n    def eval(self): ...",
    ],
)
def test_what_is_harmless_passes(snippet):
    assert not faults(snippet), faults(snippet)


def test_the_network_is_for_one_file():
    assert not faults("import urllib.request", DOWNLOADS)
    assert faults("import urllib.request", Path("genjax/data/builders/mnist.py"))
    assert faults("import pickle", DOWNLOADS)


def test_a_fault_is_told_with_its_place():
    (told,) = faults("\n\nimport pickle\n", Path("genjax/x.py"))
    assert told.startswith("genjax/x.py:3: ") and "pickle" in told
