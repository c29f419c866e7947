#!/usr/bin/env bash
# ESPnet's own mini_an4 recipe, its real data and its unedited asr.sh, with a LoRA expert of
# Whisper-tiny as the model. A few minutes on one core.
#
#   bash local/espnet.sh                                       once: fetches ESPnet's tree
#   egs2/mini_an4/asr1/run.sh --espnet_root downloads/espnet-202611 [options of asr.sh]
#
# The tree is TREE/egs2/mini_an4/asr1; the results are in its exp/asr_lora_expert. Instead of
# --espnet_root, the variable ESPNET_ROOT names the tree too. What comes after it goes to asr.sh and
# wins over what is given below:  --stage 12 --inference_args "--beam_size 10 --lm_weight 0.0"
set -euo pipefail

die() { echo "error: $*" >&2; exit 1; }

# What the run needs of a tree and of this machine; each error says how to get it.
check() {
    local recipe=$1/egs2/mini_an4/asr1 fetch="bash local/espnet.sh fetches one"
    [ -n "$1" ] || die "--espnet_root must name ESPnet's source tree, but is not given; ${fetch}"
    [ -d "$1" ] || die "--espnet_root must be ESPnet's source tree, but $1 is no folder; ${fetch}"
    [ -d "$1/egs2" ] || die "--espnet_root must have ESPnet's recipes, but $1 has no egs2 (an installed espnet has none); ${fetch}"
    [ -f "${recipe}/asr.sh" ] && [ -f "${recipe}/downloads.tar.gz" ] ||
        die "--espnet_root must have the recipe egs2/mini_an4/asr1 with asr.sh and downloads.tar.gz, but $1 lacks them; ${fetch}"
    [ -w "${recipe}" ] || die "${recipe} must be writable, as the recipe runs there, but is not"
    command -v perl >/dev/null || die "perl must be installed for ESPnet's scripts, but is not (as root: apt-get install perl)"
    command -v sclite >/dev/null || die "sclite must be installed to score, but is not (as root: apt-get install sctk)"
}

espnet_root=${ESPNET_ROOT:-}
case "${1:-}" in
    -h | --help) sed -n '2,/^set/{/^set/!p}' "$0"; exit 0 ;;
    --espnet_root) espnet_root=${2:-}; shift $(($# > 1 ? 2 : 1)) ;;
esac

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "${here}/path.sh"
check "${espnet_root}"
python=$(command -v "${python}") || die "python must be installed, but is not; run local/setup.sh"
# Scripts of the tree call python3. Kaldi's sph2pipe is taken where there is one, else ours.
PATH=$(dirname "${python}"):${PATH}:${here}/local
export PATH
ngpu=0
! nvidia-smi >/dev/null 2>&1 || ngpu=1

cd "${espnet_root}/egs2/mini_an4/asr1"
# The tree's scripts need the library of their own version.
PYTHONPATH=$(realpath ../../..)${PYTHONPATH:+:${PYTHONPATH}}
export PYTHONPATH
# Links that ESPnet's repository has, and its source distribution does not.
for name in scripts pyscripts steps utils local/path.sh; do
    [ -e "${name}" ] || ln -s "$(realpath --relative-to="$(dirname "${name}")" "../../TEMPLATE/asr1/${name}")" "${name}"
done

./run.sh --ngpu "${ngpu}" --nj 1 --inference_nj 1 --asr_tag lora_expert \
    --asr_config "${here}/conf/train_lora_expert.yaml" --feats_normalize none \
    --python "python3 -m espnet_lora_experts.run" \
    --token_type hugging_face --hugging_face_model_name_or_path openai/whisper-tiny \
    --inference_asr_model train.loss.best.pth --skip_packing false \
    --inference_args "--ctc_weight 0.0 --beam_size 5 --lm_weight 0.02 --maxlenratio 0.5" \
    "$@"

if [ -f exp/asr_lora_expert/RESULTS.md ]; then
    sed -n '/^## /,$p' exp/asr_lora_expert/RESULTS.md
    echo "results: ${PWD}/exp/asr_lora_expert/RESULTS.md"
fi
