"""One run with transformers.Trainer, as its user would write it: no part of hfbench is used.

    python tests/benchmarks/trainer_runs.py --checkpoint BERT --data FOLDER --strategy last_2 \
        --output runs/last_2_seed0

FOLDER holds train.parquet, validation.parquet and test.parquet with the columns text and label.
The best epoch by validation accuracy is kept, tested and saved; result.json has the accuracy.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, load_dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)


def choose_parameters(model: Any, strategy: str) -> Any:
    """The BERT with what ``strategy`` trains: full, scratch, head, last_n or lora."""
    if strategy in ("full", "scratch"):
        return model
    if strategy == "lora":
        lora = LoraConfig(
            task_type="SEQ_CLS",
            r=8,
            lora_alpha=16,
            target_modules=["query", "value"],
            modules_to_save=["pooler", "classifier"],
        )
        return get_peft_model(model, lora)
    model.bert.requires_grad_(False)
    model.bert.pooler.requires_grad_(True)  # new, as the classifier
    if strategy != "head":
        count = int(strategy.removeprefix("last_"))
        for block in model.bert.encoder.layer[-count:]:
            block.requires_grad_(True)
    return model


def accuracy(evaluated: Any) -> dict[str, float]:
    logits, labels = evaluated
    return {"accuracy": float((np.argmax(logits, axis=-1) == labels).mean())}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--strategy", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=128)
    options = parser.parse_args()

    set_seed(options.seed)
    splits = ("train", "validation", "test")
    data = load_dataset(
        "parquet", data_files={split: str(options.data / f"{split}.parquet") for split in splits}
    )
    names = sorted(set(data["train"]["label"]))
    data = data.cast_column("label", ClassLabel(names=names))
    tokenizer = AutoTokenizer.from_pretrained(options.checkpoint)
    data = data.map(
        lambda rows: tokenizer(rows["text"], truncation=True, max_length=options.max_length),
        batched=True,
        remove_columns=["text"],
    )

    config = AutoConfig.from_pretrained(options.checkpoint, num_labels=len(names))
    if options.strategy == "scratch":
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(
            options.checkpoint, config=config
        )
    model = choose_parameters(model, options.strategy)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(options.output),
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch_size,
            per_device_eval_batch_size=64,
            learning_rate=options.learning_rate,
            weight_decay=0.01,
            warmup_steps=0.1,  # of all steps
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="accuracy",
            seed=options.seed,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
    )
    trainer.train()
    tested = trainer.evaluate(data["test"])
    trainer.save_model(str(options.output / "model"))
    result = {
        "test_accuracy": tested["eval_accuracy"],
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "steps": trainer.state.global_step,
    }
    (options.output / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
