#!/bin/sh
# From a folder of PDFs to a trained checkpoint. Repeat the command after a kill: both parts go on where they stopped.
#
#     recipes/mmprolong-7b/train.sh PDFS RUN OUT [more options of examples/train.py]
#
# GPUS (of this machine, default 8) and SP (GPUs that share a row, default 2) come from the environment.
set -eu
here=$(dirname "$0")
pdfs=$1 run=$2 out=$3
shift 3

corpus build "$pdfs" --out "$run" --config "$here/build.yaml"
exec accelerate launch --config_file "$here/fsdp2.yaml" --num_processes "${GPUS:-8}" "$here/../../examples/train.py" \
    --run "$run" --model Qwen/Qwen2.5-VL-7B-Instruct --output_dir "$out" \
    --sequence_parallel_size "${SP:-2}" --rope_base 4e6 \
    --learning_rate 1e-5 --warmup_steps 0.1 --lr_scheduler_type cosine_with_min_lr \
    --lr_scheduler_kwargs '{"min_lr": 1e-6}' \
    --adam_beta1 0.9 --adam_beta2 0.95 --weight_decay 0.1 --max_grad_norm 1.0 \
    --bf16 true --gradient_checkpointing true \
    --dataloader_num_workers 4 --dataloader_prefetch_factor 2 \
    --logging_steps 1 --save_steps 100 --save_total_limit 2 --eval_strategy steps --eval_steps 100 "$@"
