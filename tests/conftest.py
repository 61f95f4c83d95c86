"""Tiny checkpoints with random weights, in the same folders that the hub would give."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hub_client import HubClient
    from loopback_hub import LoopbackHub

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any Hugging Face library is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["COLUMNS"] = "80"  # tables are as wide as the terminal

TINY_WORDS = (  # separated by spaces
    "the a film book song is was not very good bad great awful dull bright red green blue one two "
    "three four five six seven eight nine ten cat dog bird fish runs sleeps eats sings ."
)
SPEECH_NETWORK: dict[str, Any] = {  # a frame every 160 samples, 100 a second
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (8, 5, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_length": 4,
}


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from or left in the caches of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are read from and left in a folder of the test, not of whoever runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def own_folders(own_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same; lists of bad rows, too, go to a folder of the test, which it works in."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    """An empty Hugging Face Hub on 127.0.0.1; loopback_hub.ACCOUNTS may use it."""
    from loopback_hub import LoopbackHub

    with LoopbackHub(tmp_path / "hub") as running:
        yield running


@pytest.fixture(scope="session")
def lfs_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubClient]:
    """The real client of the Hugging Face Hub in its own process, uploading LFS files."""
    from hub_client import started_client

    with started_client(tmp_path_factory.mktemp("lfs_client"), xet=False) as client:
        yield client


@pytest.fixture(scope="session")
def xet_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubClient]:
    """The same, uploading through hf_xet, as it does by default."""
    from hub_client import started_client

    with started_client(tmp_path_factory.mktemp("xet_client"), xet=True) as client:
        yield client


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BertModel (no head): hidden 32, 3 blocks, its tokenizer knows TINY_WORDS."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("tiny_bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *TINY_WORDS.split()]
    vocabulary = {word: index for index, word in enumerate(words)}
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViTModel (no head): hidden 32, 3 blocks, 32x32 RGB images in patches of 8x8."""
    import torch
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    folder = tmp_path_factory.mktemp("tiny_vit")
    config = ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
    )
    torch.manual_seed(0)
    ViTModel(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Wav2Vec2Model (no head): hidden 32, 3 blocks, 100 frames a second at 16 kHz.

    Like wav2vec2-base it has group norm in its feature encoder and takes no attention mask.
    """
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    folder = tmp_path_factory.mktemp("tiny_wav2vec2")
    config = Wav2Vec2Config(**SPEECH_NETWORK, classifier_proj_size=16)
    torch.manual_seed(0)
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_hubert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A HubertModel (no head) as deep: layer norm and an attention mask, like the large ones."""
    import torch
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    folder = tmp_path_factory.mktemp("tiny_hubert")
    changes: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
    for name in ("hidden", "attention", "activation", "final"):
        changes[f"{name}_dropout"] = 0.0  # learns in fewer steps
    changes |= {"mask_time_prob": 0.0, "feat_proj_dropout": 0.0}
    torch.manual_seed(0)
    HubertModel(HubertConfig(**SPEECH_NETWORK, **changes)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT2LMHeadModel: hidden 32, 3 blocks, 64 positions, byte-level tokenizer of 300 tokens."""
    import torch
    from tokenizers.implementations import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

    folder = tmp_path_factory.mktemp("tiny_gpt2")
    trainer = ByteLevelBPETokenizer()
    trainer.train_from_iterator(
        [TINY_WORDS] * 3, vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False
    )
    trained = json.loads(trainer.to_str())["model"]
    merges = [tuple(pair) for pair in trained["merges"]]
    GPT2Tokenizer(vocab=trained["vocab"], merges=merges).save_pretrained(folder)
    config = GPT2Config(
        vocab_size=300,
        n_embd=32,
        n_layer=3,
        n_head=4,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 texts of two classes that their words tell apart, as jsonl."""
    folder = tmp_path_factory.mktemp("texts")
    rows = [{"text": f"good cat {i}", "label": "up"} for i in range(30)]
    rows += [{"text": f"bad dog sleeps {i}", "label": "down"} for i in range(30)]
    path = folder / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 dark and light pictures in folders named after them."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for label, level in (("dark", 40), ("light", 200)):
        (folder / label).mkdir()
        for index in range(20):
            pixels = rng.integers(level, level + 50, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 high and low tones of 0.1 s in folders named after them."""
    import numpy as np
    import soundfile

    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    seconds = np.arange(1600) / 16000
    for label, hertz in (("high", 2000), ("low", 200)):
        (folder / label).mkdir()
        for index in range(20):
            wave = 0.3 * np.sin(2 * np.pi * hertz * seconds) + 0.01 * rng.normal(size=1600)
            soundfile.write(folder / label / f"{index}.wav", wave, 16000)
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 clips of noise at 8 kHz in two folders, in each from 0.25 s on every one longer."""
    import numpy as np
    import soundfile

    root = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    for label in ("a", "b"):
        (root / label).mkdir()
        for i in range(20):
            samples = generator.normal(0, 0.1, 2000 + 400 * i).astype(np.float32)
            soundfile.write(root / label / f"{i:02}.wav", samples, 8000)
    return root


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty lines, no two alike."""
    path = tmp_path_factory.mktemp("book") / "book.txt"
    lines = [f"the cat {i} runs and the dog sleeps, two fish sing {i * i}.\n" for i in range(40)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty prompts of unequal length, each with a completion of one word or two."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {"prompt": "the cat " + "sings " * (i % 4) + str(i), "completion": f"bird {i % 3}"}
        for i in range(30)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train, validation and test tables and their recordings."""
    import soundfile
    from spoken_tones import TRANSCRIPTS, spoken

    folder = tmp_path_factory.mktemp("speech")
    for number, (split, count) in enumerate({"train": 36, "validation": 6, "test": 7}.items()):
        rows = []
        for index in range(count):
            text = TRANSCRIPTS[index % len(TRANSCRIPTS)]
            soundfile.write(
                folder / f"{split}{index}.wav", spoken(text, 100 * number + index), 16000
            )
            rows.append({"audio": f"{split}{index}.wav", "transcript": text, "speaker": "x"})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder
