"""Flat token arrays give what the tokenizer's own padding gives."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, concatenate_datasets
from transformers import BertTokenizer, PreTrainedTokenizerBase

from hfbench.config import DataConfig, ModelConfig, RunConfig
from hfbench.data.tokens import Padding, TokenSamples
from hfbench.errors import UserError
from hfbench.tasks import make_task
from hfbench.training.batching import BatchSource

CPU = torch.device("cpu")
TEXTS = ("the film was very good", "a dull book", "one two three four five", "bad", "the cat sings")
PAIRS = ("a dog", "blue", "not bad", "the bird eats one fish", "red")


@pytest.fixture
def tokenizer(tiny_bert: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = BertTokenizer.from_pretrained(tiny_bert)
    loaded._pad_token_type_id = 3  # as XLNet's: not what real tokens have
    return loaded


def tokenized(tokenizer: Any, *columns: tuple[str, ...]) -> Dataset:
    features = dict(tokenizer(*map(list, columns)))
    return Dataset.from_dict({"labels": list(range(len(columns[0])))} | features)


def padded_by(tokenizer: Any, samples: list[dict[str, Any]], multiple_of: int) -> dict[str, Any]:
    """What the tokenizer makes of single samples, and their labels."""
    features = [{k: v for k, v in sample.items() if k != "labels"} for sample in samples]
    batch = tokenizer.pad(
        features, padding="longest", pad_to_multiple_of=multiple_of, return_tensors="pt"
    )
    return dict(batch) | {"labels": torch.tensor([sample["labels"] for sample in samples])}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].device) == (torch.int64, CPU)
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("multiple_of", [1, 8])
@pytest.mark.parametrize("columns", [(TEXTS,), (TEXTS, PAIRS)])
@pytest.mark.parametrize("indices", [(3,), (0, 1, 2, 3, 4), (4, 1, 1), range(2)])
def test_a_batch_is_what_the_tokenizer_pads(
    tokenizer: PreTrainedTokenizerBase,
    side: str,
    multiple_of: int,
    columns: tuple[tuple[str, ...], ...],
    indices: Any,
) -> None:
    tokenizer.padding_side = side
    padding = Padding.of(tokenizer, multiple_of=multiple_of)
    dataset = tokenized(tokenizer, *columns)
    samples = [dataset[index] for index in indices]
    expected = padded_by(tokenizer, samples, multiple_of)
    assert {"input_ids", "token_type_ids", "attention_mask", "labels"} == set(expected)
    source = TokenSamples.of_dataset(dataset, padding)
    assert_same(source.read_batch(indices, CPU), expected)
    together = TokenSamples.of_samples(samples, padding)
    assert_same(together.read_batch(range(len(samples)), CPU), expected)


def test_single_samples_and_lengths_are_those_of_the_data_set(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    dataset = tokenized(tokenizer, TEXTS)
    source = TokenSamples.of_dataset(dataset, Padding.of(tokenizer))
    assert list(source) == list(dataset)
    assert source[-1] == dataset[len(dataset) - 1]
    assert source.lengths() == [7, 5, 7, 3, 5]  # the words, [CLS] and [SEP]
    assert isinstance(source, BatchSource)


def test_rows_may_lie_in_several_chunks_and_in_another_order(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    dataset = tokenized(tokenizer, TEXTS)
    sliced = dataset.select(range(1, 4))  # a view from the middle of a column
    chunked = concatenate_datasets([dataset, sliced])
    assert chunked.data.column("input_ids").num_chunks == 2
    for rows in (sliced, chunked, chunked.select([6, 0, 3, 3])):
        source = TokenSamples.of_dataset(rows, Padding.of(tokenizer))
        assert list(source) == list(rows)
        expected = padded_by(tokenizer, list(rows), 1)
        assert_same(source.read_batch(range(len(rows)), CPU), expected)


def test_a_column_in_one_piece_is_not_copied(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    tokenized(tokenizer, TEXTS).save_to_disk(tmp_path)
    dataset = Dataset.load_from_disk(str(tmp_path))
    source = TokenSamples.of_dataset(dataset, Padding.of(tokenizer))
    stored = dataset.data.column("input_ids").chunk(0).values
    assert source.features["input_ids"].ctypes.data == stored.buffers()[1].address


def test_texts_without_labels_and_without_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = Dataset.from_dict({"input_ids": [[], [4, 5]]})
    source = TokenSamples.of_dataset(rows, Padding.of(tokenizer))
    assert source[0] == {"input_ids": []}
    assert source.read_batch([0, 1], CPU)["input_ids"].tolist() == [[0, 0], [4, 5]]
    assert source.read_batch([0], CPU)["input_ids"].shape == (1, 0)
    assert list(source.read_batch([1], CPU)) == ["input_ids"]


def test_a_feature_that_cannot_be_padded_is_named(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = Dataset.from_dict({"input_ids": [[4]], "entity_ids": [[1]]})
    with pytest.raises(UserError, match="gives entity_ids, which cannot be padded; known: input_"):
        TokenSamples.of_dataset(rows, Padding.of(tokenizer))


def test_the_task_reads_batches_as_it_collates_samples(tiny_bert: Path, tmp_path: Path) -> None:
    rows = [{"text": TEXTS[i % 5], "other": PAIRS[i % 3], "label": i % 2} for i in range(60)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = DataConfig(
        source=str(tmp_path / "pairs.jsonl"),
        text_column="text",
        text_pair_column="other",
        max_length=7,
    )
    config = RunConfig(
        task="text_classification", model=ModelConfig(checkpoint=str(tiny_bert)), data=data
    )
    task = make_task(config)
    train: Any = task.prepare_data().train
    indices = [5, 0, 11, 7]
    assert_same(train.read_batch(indices, CPU), task.collate([train[i] for i in indices]))
    assert task.sample_lengths(train) == [len(train[i]["input_ids"]) for i in range(len(train))]
