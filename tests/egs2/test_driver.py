"""lora_experts.sh: what it asks Python to do, and what it leaves, resumes or keeps."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from espnet2.bin import launch

from espnet_lora_experts.plugin.task import LoraExpertsTask

ROOT = Path(__file__).parents[2]
PYTHON = r"""#!/usr/bin/env bash
# Stands in for Python: notes its arguments, leaves what a training leaves, or fails.
echo "$(printf '%q ' "$@")" >>calls # one write: jobs run side by side
case "$*" in *output_dir\ ${fails_at:-none}*) exit 3 ;; esac
while [ $# -gt 1 ]; do
    if [ "$1" = --output_dir ]; then
        mkdir -p "$2"
        echo "$2" >"$2/checkpoint.pth"
    fi
    shift
done
"""


@pytest.fixture
def recipe(tmp_path):
    """A recipe's folder with data that need no reading."""
    for path in (ROOT / "egs2/TEMPLATE/asr1").iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    for folder in ("train", "dev", "test"):
        data = tmp_path / "dump/raw" / folder
        data.mkdir(parents=True)
        for name in ("utt2num_samples", "text", "utt2lang"):
            (data / name).write_text("a 1\n")
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path


@pytest.fixture
def run(recipe):
    """Runs one stage; gives what Python was asked to do."""

    def run(stage, *options, python="./python", fails=False, **more):
        (recipe / "calls").write_text("")
        command = ["./lora_experts.sh", "--stage", str(stage), "--stop_stage"]
        done = subprocess.run(
            [*command, str(stage), *options],
            cwd=recipe,
            env={
                "python": python,
                "PATH": "/usr/bin:/bin",
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "0",
                **more,
            },
            text=True,
            capture_output=True,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        calls = (recipe / "calls").read_text().splitlines()
        return [shlex.split(call) for call in calls], done.stdout + done.stderr

    return run


def trained(calls):
    """Folders that were trained."""
    return [
        call[call.index("--output_dir") + 1] for call in calls if "--output_dir" in call
    ]


def test_every_code_stays_a_string(run):
    """YAML alone reads no, Norwegian, as false."""
    [call], _ = run(6, "--langs", "no sv")
    assert call[:2] == ["-m", "espnet_lora_experts.bin.train"]
    args = LoraExpertsTask.get_parser().parse_args(call[2:])
    assert args.model_conf["languages"] == ["no", "sv"]


def test_same_options_resume_and_finished_work_is_left(run, recipe):
    run(5)
    assert trained(run(5)[0]) == ["exp/mono"]
    assert "left as it is" in run(5, "--skip_done", "true")[1]
    assert trained(run(5, "--skip_done", "true")[0]) == []
    assert not (recipe / "exp/replaced").exists()


@pytest.mark.parametrize("option", ["--max_epoch 9", "--log_interval 1"])
def test_a_longer_training_goes_on(run, recipe, option):
    run(5)
    options = ("--expert_args", option, "--skip_done", "true")
    assert trained(run(5, *options)[0]) == ["exp/mono"]
    assert not (recipe / "exp/replaced").exists()


@pytest.mark.parametrize("change", ["langs", "options", "text", "config"])
def test_another_training_starts_anew_and_keeps_the_old(run, recipe, change):
    run(5)
    options = []
    if change == "langs":
        options = ["--langs", "cs nl"]
    elif change == "options":
        options = ["--expert_args", "--model_conf r=8"]
    elif change == "text":
        (recipe / "dump/raw/train/text").write_text("a 2\n")
    else:
        (recipe / "own.yaml").write_text("model: lora_expert\nmax_epoch: 4\n")
        options = ["--expert_config", "own.yaml"]
    calls, said = run(5, *options)
    assert trained(calls) == ["exp/mono"]
    [kept] = (recipe / "exp/replaced").iterdir()
    assert (kept / "checkpoint.pth").exists() and f"replaced/{kept.name}" in said


def test_new_experts_make_their_student_another_training(run, recipe):
    run(5)
    (recipe / "exp/mono/system.json").write_text('{"experts": {}}')
    run(8)
    run(5, "--expert_args", "--model_conf r=8")
    (recipe / "exp/mono/system.json").write_text('{"experts": {}}')
    run(8)
    names = {path.name.split(".")[0] for path in (recipe / "exp/replaced").iterdir()}
    assert names == {"mono", "kd"}


def test_lengths_are_those_that_stage_2_counted(run, recipe):
    run(4)
    for part, name in (("train", "train"), ("valid", "dev")):
        counted = (recipe / f"dump/raw/{name}/utt2num_samples").read_text()
        shapes = recipe / f"exp/stats/{part}/speech_shape"
        assert counted and shapes.read_text() == counted


def test_several_gpus_go_through_espnets_launcher(run):
    assert run(6, "--ngpu", "1")[0][0][:2] == ["-m", "espnet_lora_experts.bin.train"]
    [call, *_], _ = run(6, "--ngpu", "2")
    own, training = call[: call.index("--")], call[call.index("--") + 1 :]
    assert own[:2] == ["-m", "espnet2.bin.launch"]
    args = launch.get_parser().parse_args([*own[2:], "--", *training])
    assert (args.ngpu, args.num_nodes, args.multiprocessing_distributed) == (2, 1, True)
    assert args.cmd == "./run_job.sh" and args.log == "exp/multi/train.log"
    assert training[:3] == ["./python", "-m", "espnet_lora_experts.bin.train"]


@pytest.mark.parametrize(
    "ngpu, ends", [("0", ["--dist_backend", "gloo"]), ("2", ["--ngpu", "1"])]
)
def test_torchrun_starts_a_process_for_each_rank(run, ngpu, ends):
    [call], _ = run(6, "--torchrun", "--nproc_per_node 2", "--ngpu", ngpu)
    runner = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    assert call[:6] == [*runner, "-m", "espnet_lora_experts.bin.train"]
    assert call[-4:] == ["--multiprocessing_distributed", "false", *ends]


def test_several_machines_need_a_cluster(run):
    calls, said = run(6, "--num_nodes", "2", fails=True)
    assert not calls and "--num_nodes 2 must go through a cluster" in said


@pytest.mark.parametrize(
    "backend, message",
    [
        ("slurm", "must find ESPnet's slurm.pl, but it is neither in PATH nor in"),
        ("sge", "must find ESPnet's queue.pl"),
        ("slrm", "must be local, slurm, sge, pbs, ssh or run, but got 'slrm'"),
    ],
)
def test_a_missing_launch_script_is_one_clear_error(run, backend, message):
    calls, said = run(6, fails=True, cmd_backend=backend, ESPNET_ROOT="/nowhere")
    assert not calls and message in said


@pytest.mark.parametrize("backend, script", [("slurm", "slurm"), ("sge", "queue")])
def test_jobs_go_through_the_launch_scripts_of_espnets_tree(
    run, recipe, backend, script
):
    """With the recipe's configuration; here a script that only notes its options."""
    utils = recipe / "espnet/egs2/TEMPLATE/asr1/utils"
    utils.mkdir(parents=True)
    (utils / f"{script}.pl").write_text(
        '#!/bin/sh\nshift 5\n"$@"\necho "$0" >>used\ntouch exp/multi/train.log\n'
    )
    (utils / f"{script}.pl").chmod(0o755)
    cluster = {"cmd_backend": backend, "ESPNET_ROOT": str(recipe / "espnet")}
    [call], _ = run(6, **cluster)
    assert call[:2] == ["-m", "espnet_lora_experts.bin.train"]
    assert (recipe / "used").read_text().split() == [str(utils / f"{script}.pl")]


APART = ("--joint_experts", "false", "--langs", "es fr no ro ru")


@pytest.mark.parametrize("at_once", ["0", "1", "2", "9"])
def test_experts_apart_are_a_job_each(run, recipe, at_once):
    calls, _ = run(5, *APART, "--nj_train", at_once)
    names = [f"exp/mono_{lang}" for lang in APART[-1].split()]
    assert sorted(trained(calls)) == names
    [norwegian] = [call for call in calls if "exp/mono_no" in call]
    args = LoraExpertsTask.get_parser().parse_args(norwegian[2:])
    assert args.model_conf["languages"] == ["no"]
    [joined] = [call for call in calls if "espnet_lora_experts.bin.combine" in call]
    assert joined[joined.index("--inputs") + 1].split() == names


@pytest.fixture
def waits(recipe):
    """A Python that takes its time and notes how many train, with how many threads."""
    path = recipe / "waits"
    path.write_text(
        "#!/usr/bin/env bash\n"
        'case "$*" in *bin.train*) ;; *) exec ./python "$@" ;; esac\n'
        'mkdir -p running; touch "running/$$"; echo "${OMP_NUM_THREADS}" >>threads\n'
        "ls running | wc -l >>counts; sleep 0.15; ls running | wc -l >>counts\n"
        'rm "running/$$"; exec ./python "$@"\n'
    )
    path.chmod(0o755)

    def noted():
        for name in ("counts", "threads"):
            yield [int(line) for line in (recipe / name).read_text().split()]

    return noted


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_as_many_experts_train_at_once_as_asked(run, waits, at_once):
    run(5, *APART, "--nj_train", str(at_once), python="./waits")
    assert max(next(waits())) == at_once


ALL = ("--train_full", "true", "--train_kd_logits_only", "true")
NAMES = [
    "exp/full",
    "exp/kd",
    "exp/kd_logits_only",
    "exp/mole",
    "exp/mono",
    "exp/multi",
]


def train_all(run, *options, **more):
    """Stages 5 to 8."""
    return run(5, "--stop_stage", "8", *ALL, *options, **more)


@pytest.mark.parametrize(
    "options, at_once, threads",
    [((), 2, 4), (("--nj_train", "1"), 1, 8), (("--nj_train", "3"), 3, 3)],
)
def test_trainings_share_the_machine(run, waits, options, at_once, threads):
    more = {"python": "./waits", "OMP_NUM_THREADS": "8"}
    calls, _ = train_all(run, *options, **more)
    assert sorted(trained(calls)) == NAMES
    counts, each = waits()
    assert max(counts) == at_once and set(each) == {threads}


@pytest.mark.parametrize(
    "options, threads",
    [
        (("--skip_stages", "5 6 7"), [8]),  # the only one: all threads
        (("--skip_stages", "5 6"), [4, 4]),
        (("--ngpu", "1", "--skip_stages", "5 6"), [8, 8]),  # one after the other
        (("--torchrun", "--nproc_per_node 2", "--skip_stages", "5 6"), [8, 8]),
    ],
)
def test_what_trains_alone_has_all_threads(run, waits, options, threads):
    more = {"python": "./waits", "OMP_NUM_THREADS": "8"}
    run(5, "--stop_stage", "8", *options, **more)
    counts, each = waits()
    assert each == threads and (max(counts) == 1) == (8 in threads)


@pytest.mark.parametrize(
    "at_once, beside, gpus",
    [
        ("0", "", {"7", "5", "3"}),  # as many as there are
        ("2", "", {"7", "5"}),
        ("1", "2", {"3"}),  # this recipe itself is the third of a sweep's
    ],
)
def test_each_training_has_a_gpu_of_its_own(run, recipe, at_once, beside, gpus):
    (recipe / "notes").write_text(
        "#!/usr/bin/env bash\n"
        'case "$*" in *bin.train*) ;; *) exec ./python "$@" ;; esac\n'
        'mkdir "on_${CUDA_VISIBLE_DEVICES}" || exit 1; sleep 0.15\n'
        'rmdir "on_${CUDA_VISIBLE_DEVICES}"; echo "${CUDA_VISIBLE_DEVICES}" >>gpus\n'
        'exec ./python "$@"\n'
    )
    (recipe / "notes").chmod(0o755)
    more = {"CUDA_VISIBLE_DEVICES": "7,5,3", "job_place": beside}
    run(5, *APART, "--ngpu", "1", "--nj_train", at_once, python="./notes", **more)
    each = (recipe / "gpus").read_text().split()
    assert len(each) == len(APART[-1].split()) and set(each) == gpus


@pytest.mark.parametrize("at_once", ["1", "2", "9"])
def test_what_needs_the_experts_starts_after_them(run, waits, at_once):
    calls, _ = train_all(run, "--nj_train", at_once, python="./waits")
    [joined] = [i for i, call in enumerate(calls) if call[1].endswith("bin.combine")]
    before, after = trained(calls[:joined]), trained(calls[joined:])
    assert "exp/mono" in before
    assert set(after) >= {"exp/mole", "exp/kd", "exp/kd_logits_only"}


@pytest.mark.parametrize(
    "broken, left", [("exp/mono", {"exp/full", "exp/multi"}), ("exp/multi", set(NAMES))]
)
def test_a_failed_training_stops_what_needs_it_only(run, broken, left):
    calls, said = train_all(run, fails=True, fails_at=broken)
    assert set(trained(calls)) == left | {broken}
    assert f"failed: {broken}/train.log; what was trained beside is kept" in said
    calls, _ = train_all(run, "--skip_done", "true")
    assert set(trained(calls)) == set(NAMES) - left | {broken}


@pytest.mark.parametrize(
    "ends, said",
    [
        ("exit 1", ""),
        ("kill -TERM $PPID", "stopped; the same command"),
        # as pkill -f its name would, its shells at once
        ("kill -TERM $(</proc/$PPID/task/$PPID/children) $PPID", ""),
    ],
)
def test_trainings_end_with_the_recipe(recipe, run, ends, said):
    """A step between them fails, or the recipe is told to stop."""
    (recipe / "sleeps").write_text(
        "#!/usr/bin/env bash\n"
        'case "$*" in\n'
        "*bin.train*exp/multi*) trap 'touch stopped; exit 143' TERM; touch runs\n"
        "    sleep 60 & wait ;;\n"
        f"*bin.combine*) until [ -e runs ]; do sleep 0.05; done; {ends} ;;\n"
        'esac\nexec ./python "$@"\n'
    )
    (recipe / "sleeps").chmod(0o755)
    assert said in train_all(run, fails=True, python="./sleeps")[1]
    assert (recipe / "stopped").exists()


@pytest.mark.parametrize("at_once", ["1", "3"])
def test_a_failed_expert_is_named_and_a_rerun_trains_only_it(run, recipe, at_once):
    apart = (*APART, "--nj_train", at_once)
    calls, said = run(5, *apart, fails=True, fails_at="exp/mono_fr")
    assert "failed: exp/mono_fr/train.log; what was trained beside" in said
    assert len(trained(calls)) == 5  # the others go on
    assert not any("espnet_lora_experts.bin.combine" in call for call in calls)
    calls, _ = run(5, *apart, "--skip_done", "true")
    assert trained(calls) == ["exp/mono_fr"]


def test_variants_lie_beside_and_start_from_the_experts_named(run, recipe):
    calls, _ = run(5, "--tag", "r_8")
    assert trained(calls) == ["exp/mono_r_8"]
    combined = calls[-1]
    assert combined[combined.index("--output") + 1] == "exp/mono_r_8"
    assert combined[combined.index("--two_pass") + 1] == "exp/two_pass_r_8"
    each, _ = run(5, "--tag", "r_8", "--joint_experts", "false", "--langs", "cs nl")
    assert trained(each) == ["exp/mono_r_8_cs", "exp/mono_r_8_nl"]
    calls, _ = run(7, "--tag", "r_8", "--experts", "mono_r_8")
    assert trained(calls) == ["exp/mole_r_8"] and calls[0] == ["-", "exp/mono_r_8"]


def test_another_variant_of_the_experts_leaves_their_student_finished(run):
    run(5)
    run(8)
    run(5, "--tag", "r_8", "--expert_args", "--model_conf r=8")
    assert trained(run(8, "--skip_done", "true")[0]) == []


def test_several_gpus_are_several_processes(run):
    assert "--multiprocessing_distributed" not in run(5, "--ngpu", "1")[0][0]
    assert "--multiprocessing_distributed" in run(5, "--ngpu", "2")[0][0]


@pytest.mark.parametrize("stage", [7, 8])
def test_fusion_without_experts_says_what_is_missing(run, stage):
    calls, said = run(stage, python=sys.executable, fails=True)
    assert not calls and "exp/mono must be a system's folder" in said


def test_dumps_of_archives_are_read_as_such(run, recipe):
    """ESPnet's asr.sh writes them for audio_format flac.ark."""
    assert "dump/raw/dev/wav.scp,speech,sound" in run(6)[0][0]
    (recipe / "dump/raw/dev/wav.scp").write_text("a dump/raw/org/data_wav.ark:2\n")
    assert "dump/raw/dev/wav.scp,speech,kaldi_ark" in run(6)[0][0]
    assert "dump/raw/train/wav.scp,speech,sound" in run(6)[0][0]


def test_languages_of_all_sets_are_checked_before_training(run):
    [check], _ = run(4, "--langs", "es ru")
    folders = "dump/raw/train dump/raw/dev dump/raw/test"
    assert check[-4:] == ["--check_dirs", folders, "--langs", "es ru"]


def test_full_fine_tuning_without_the_pooled_lora(run):
    options = ["--train_multi", "false", "--train_full", "true", "--tag", "curated"]
    assert trained(run(6, *options)[0]) == ["exp/full_curated"]


def test_padded_systems_are_decoded_beside_the_natural_ones(run, recipe):
    (recipe / "exp/kd").mkdir(parents=True)
    (recipe / "exp/kd/system.json").write_text("{}")
    [call], _ = run(9, "--padded", "kd")
    assert call[call.index("--systems") + 1].split() == ["kd", "kd@30s"]


def test_jobs_of_one_machine_share_its_threads(recipe):
    command = ["./run_job.sh", "JOB=1:3", "JOB.log", "sh", "-c"]
    subprocess.run(
        [*command, "echo has ${OMP_NUM_THREADS}"],
        cwd=recipe,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "8"},
        check=True,
    )
    for job in "123":
        assert "\nhas 3\n" in (recipe / f"{job}.log").read_text()


@pytest.mark.parametrize(
    "ngpu, more, at_once",
    [
        ("1", {}, "3"),
        ("2", {}, "1"),
        ("4", {}, "1"),  # fewer than asked
        ("1", {"torchrun": "--nproc_per_node 1"}, "1"),  # they share a port
        ("1", {"cmd_backend": "run"}, "1"),  # they would share a GPU
        ("1", {"cmd_backend": "slurm"}, "9"),
        ("1", {"nj_train": "2"}, "2"),
        ("0", {}, "2"),
    ],
)
def test_as_many_train_at_once_as_there_is_room_for(recipe, ngpu, more, at_once):
    env = {"ngpu": ngpu, "nj_train": "0", "torchrun": "", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        ["bash", "-euc", '. ./jobs.sh; side_by_side 9; echo "${at_once}"'],
        cwd=recipe,
        env={"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "7,5,3", **env, **more},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [at_once]


def test_signs_of_life_are_of_the_job_not_of_what_it_loads(recipe):
    said = (
        r"printf 'Loading weights: 100%%| 167/167 [00:00, 7390.49it/s]\n'; sleep 0.5;"
        r" printf 'exp/kd/test: 50%%| 20/40 [00:05, 4.00it/s]\n'; sleep 0.5"
    )
    done = subprocess.run(
        ["./run_job.sh", "log", "sh", "-c", said],
        cwd=recipe,
        env={"PATH": "/usr/bin:/bin", "progress_interval": "0.1"},
        check=True,
        capture_output=True,
        text=True,
    )
    [line] = done.stdout.splitlines()
    assert line == "    log: exp/kd/test: 50%| 20/40 [00:05, 4.00it/s]"


@pytest.mark.parametrize(
    "ngpu, offered, given",
    [
        ("1", "7,5", ["7", "5", "7"]),
        ("2", "7,5,3,1,0", ["7,5", "3,1", "7,5"]),  # whole groups only
        ("2", None, ["a,b", "a,b", "a,b"]),  # those that nvidia-smi lists
        ("4", None, ["", "", ""]),  # fewer than asked: Python says so
        ("0", "7,5", ["7,5", "7,5", "7,5"]),
    ],
)
def test_jobs_of_one_machine_have_gpus_of_their_own(recipe, ngpu, offered, given):
    (recipe / "nvidia-smi").write_text("#!/bin/sh\nprintf 'a\\nb\\nc\\n'\n")
    (recipe / "nvidia-smi").chmod(0o755)
    env = {} if offered is None else {"CUDA_VISIBLE_DEVICES": offered}
    command = ["./run_job.sh", "--gpu", ngpu, "JOB=1:3", "JOB.log", "sh", "-c"]
    subprocess.run(
        [*command, "echo has ${CUDA_VISIBLE_DEVICES}."],
        cwd=recipe,
        env={"PATH": f"{recipe}:/usr/bin:/bin", **env},
        check=True,
    )
    for job, gpus in zip("123", given, strict=True):
        assert f"\nhas {gpus}.\n" in (recipe / f"{job}.log").read_text()


def test_a_machine_that_lists_no_gpus_leaves_them_as_they_are(recipe):
    (recipe / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (recipe / "nvidia-smi").chmod(0o755)
    command = ["./run_job.sh", "--gpu", "1", "log", "sh", "-c"]
    subprocess.run(
        [*command, "echo has ${CUDA_VISIBLE_DEVICES-none}."],
        cwd=recipe,
        env={"PATH": f"{recipe}:/usr/bin:/bin"},
        check=True,
    )
    assert "\nhas none.\n" in (recipe / "log").read_text()


def test_all_variants_of_a_tag_are_decoded_beside_the_first(run, recipe):
    for name in ("mono", "mono_a", "two_pass", "two_pass_a", "kd_a"):
        (recipe / "exp" / name).mkdir(parents=True)
        (recipe / "exp" / name / "system.json").write_text("{}")
    [call], _ = run(9, "--tag", "a")
    systems = call[call.index("--systems") + 1].split()
    assert systems == ["mono", "mono_a", "two_pass", "two_pass_a", "kd_a"]


def test_the_baselines_are_an_option(run, recipe):
    for folder in ("score_wer", "score_cer"):  # for sclite, where it is there
        path = recipe / "exp/kd/decode_aware/test" / folder
        path.mkdir(parents=True)
        for name in ("ref.trn", "hyp.trn"):
            (path / name).write_text("uno (a-1)\n")
    [call], _ = run(10, "--systems", "kd", "--baseline", "multi kd")
    assert call[call.index("--baseline") + 1] == "multi kd"
