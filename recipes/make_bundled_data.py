"""Makes the two bundled demo data sets, python-docs and spoken-digits, from installed packages.

    apt-get install python3.11-doc espeak-ng
    python recipes/make_bundled_data.py

python-docs: paragraphs of the Python Library Reference, labelled by chapter.
spoken-digits: the words zero to nine spoken by espeak-ng voices, with noise. Synthetic.
The same inputs and seed give the same rows.
"""

import argparse
import io
import random
import re
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import soxr

SPLITS = ("train", "validation", "test")

# label -> chapter pages of the Library Reference whose modules carry it
CHAPTERS = {
    "data types": ("datatypes",),
    "numeric and functional": ("numeric", "functional"),
    "files and persistence": ("filesys", "persistence", "archiving", "fileformats"),
    "concurrency": ("concurrency",),
    "internet and markup": ("internet", "markup", "netdata"),
    "graphical interfaces": ("tk",),
    "development and debugging": ("development", "debug"),
    "language services": ("language", "python", "modules"),
}
PARAGRAPHS_PER_LABEL = {"train": 200, "validation": 38, "test": 75}
MAX_PARAGRAPHS_PER_PAGE = 100
MIN_WORDS, MAX_WORDS = 15, 80
SHINGLE_WORDS = 5
MAX_SIMILARITY = 0.3  # Jaccard index of two paragraphs' shingles; more is a near-duplicate

# directives whose body is not prose; versionadded and its like are boilerplate
SKIPPED_DIRECTIVES = re.compile(
    r"(code|code-block|doctest|test\w+|literalinclude|highlight|index|module|\w*module|toctree"
    r"|image|figure|table|list-table|csv-table|productionlist|parsed-literal|math|raw|include"
    r"|versionadded|versionchanged|deprecated|deprecated-removed|seealso|sectionauthor"
    r"|moduleauthor|only|audit-event|availability|tabularcolumns|contents|rubric|impl-detail)$"
)

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VARIANTS = {
    "train": "m1 m3 m4 m6 m8 f1 f3 f4 Alex Andy Mike caleb ed linda klatt2 steph",
    "validation": "m2 f5 john belinda",
    "test": "m5 m7 f2 Annie Gene Michael Lee aunty david max klatt4 croak",
}
ACCENTS = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029")
CLIPS_PER_DIGIT = {"train": 60, "validation": 15, "test": 40}
SAMPLE_RATE_HZ = 16_000
CLIP_SECONDS = 0.8
SNR_DB = (2.0, 18.0)
QUANTISATION_STEP = 256  # of 16 bit: FLAC then stores only the upper 8 bits


Shingles = frozenset[tuple[str, ...]]


class Paragraph(NamedTuple):
    text: str
    label: str
    page: str
    section: str


def modules_of(chapter: Path) -> list[Path]:
    """The pages in the toctrees of a chapter page, at any depth."""
    if not chapter.exists():
        raise SystemExit(f"{chapter} does not exist: is python3.11-doc installed? (--docs)")
    toctrees = re.findall(r"\.\. toctree::\n((?:[ \t]+.*\n|\n)+)", chapter.read_text() + "\n")
    names = re.findall(r"^\s+([\w.]+)\.rst$", "".join(toctrees), re.MULTILINE)
    pages = [chapter.parent / f"{name}.rst.txt" for name in names]
    return pages + [inner for page in pages for inner in modules_of(page)]


def prose_blocks(rst: str) -> Iterator[tuple[str, str]]:
    """(section heading, paragraph in rst) of a page, without code, tables and boilerplate."""
    section, skip_deeper_than = "", None
    for block in re.split(r"\n\s*\n", rst.expandtabs(8)):
        lines = block.strip("\n").split("\n")
        indent = len(lines[0]) - len(lines[0].lstrip())
        if skip_deeper_than is not None and indent > skip_deeper_than:
            continue
        skip_deeper_than = None
        if any(re.fullmatch(r"([=\-*#~^\"'+.])\1{2,}", line.strip()) for line in lines):
            section = " ".join(line for line in lines if re.search(r"\w", line)).strip()
            continue
        directive = re.match(r"\s*\.\. ([\w:-]+)::", lines[0])
        if directive:
            if SKIPPED_DIRECTIVES.match(directive[1]):
                skip_deeper_than = indent
                continue
            has_prose = directive[1] in ("note", "warning")
            lines[0] = lines[0][directive.end() :] if has_prose else ""
        elif lines[0].lstrip().startswith(".. "):  # a comment, a target or a substitution
            skip_deeper_than = indent
            continue
        text = "\n".join(lines).strip()
        if text.endswith("::"):
            skip_deeper_than = indent
        for item in re.split(r"\n\s*(?=[*-] |:\w[\w ]*: )", text):
            if not re.search(r">>>|\||[=+-]{3,}", item):
                yield section, " ".join(item.split())


def plain_text(rst: str) -> str:
    """Removes the markup of one paragraph: roles, emphasis, links, bullets, field names."""
    text = re.sub(r"^([*-]|#\.|\d+\.|\(\d+\)|:[^:`]+:)\s+", "", rst)
    text = re.sub(r":pep:`(\d+)`", r"PEP \1", text)
    text = re.sub(r":[\w:+-]+:`[~!]?([^`<]*?)\s*(<[^`]*>)?`", r"\1", text)
    text = re.sub(r"`([^`<]*?)\s*<[^`]*>`__?", r"\1", text)
    text = re.sub(r"``?([^`]*)``?_?", r"\1", text)
    text = re.sub(r"(?<![\w*])(\*{1,2})([^\s*](?:[^*]*[^\s*])?)\1(?![\w*])", r"\2", text)
    text = re.sub(r"\[[\w#]+\]_|\\", "", text).replace("::", ":").replace("---", "-")
    return re.sub(r"\s+", " ", text).strip()


def is_prose(text: str) -> bool:
    words = text.split()
    wordlike = sum(bool(re.fullmatch(r"[A-Za-z][A-Za-z'-]*[.,;:)]?", word)) for word in words)
    is_sentence = text[:1].isupper() and text[-1] in ".:)"
    return is_sentence and MIN_WORDS <= len(words) <= MAX_WORDS and wordlike >= 0.7 * len(words)


def shingles(text: str) -> Shingles:
    words = re.findall(r"\w+", text.lower())
    return frozenset(zip(*(words[n:] for n in range(SHINGLE_WORDS)), strict=False))


def without_near_duplicates(paragraphs: list[Paragraph]) -> list[Paragraph]:
    """Keeps the first of any paragraphs whose shingles' Jaccard index is over MAX_SIMILARITY."""
    kept: list[tuple[Paragraph, Shingles]] = []
    containing: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for paragraph in paragraphs:
        own = shingles(paragraph.text)
        shared = Counter(number for shingle in own for number in containing[shingle])
        if all(n / len(own | kept[number][1]) <= MAX_SIMILARITY for number, n in shared.items()):
            for shingle in own:
                containing[shingle].append(len(kept))
            kept.append((paragraph, own))
    return [paragraph for paragraph, _ in kept]


def python_docs(library: Path, seed: int) -> dict[str, pa.Table]:
    """Rows (text, label); a section of a page lies in one split only."""
    rng = random.Random(seed)
    paragraphs: list[Paragraph] = []
    for label, chapters in CHAPTERS.items():
        pages = {page for name in chapters for page in modules_of(library / f"{name}.rst.txt")}
        for page in sorted(pages):
            blocks = [(s, plain_text(rst)) for s, rst in prose_blocks(page.read_text())]
            found = [Paragraph(text, label, page.name, s) for s, text in blocks if is_prose(text)]
            paragraphs += rng.sample(found, min(len(found), MAX_PARAGRAPHS_PER_PAGE))
    sections: dict[str, dict[tuple[str, str], list[Paragraph]]] = defaultdict(dict)
    for p in without_near_duplicates(paragraphs):
        sections[p.label].setdefault((p.page, p.section), []).append(p)
    splits: dict[str, list[Paragraph]] = {split: [] for split in SPLITS}
    for label in CHAPTERS:
        groups = list(sections[label].values())
        rng.shuffle(groups)
        for split in ("test", "validation", "train"):
            wanted, got = PARAGRAPHS_PER_LABEL[split], []
            while groups and len(got) < wanted:
                got += groups.pop()
            splits[split] += rng.sample(got, min(len(got), wanted))
    for rows in splits.values():
        rng.shuffle(rows)
    as_rows = {s: [{"text": p.text, "label": p.label} for p in ps] for s, ps in splits.items()}
    return {split: pa.Table.from_pylist(rows) for split, rows in as_rows.items()}


def speak(word: str, voice: str, pitch: int, words_per_minute: int) -> np.ndarray:
    """Mono samples (n,), float64, 16 kHz, without the silence at both ends."""
    command = ["espeak-ng", "--stdout", "-v", voice, "-p", str(pitch), "-s", str(words_per_minute)]
    wav = subprocess.run([*command, word], check=True, capture_output=True).stdout
    samples, rate_hz = soundfile.read(io.BytesIO(wav))  # espeak-ng writes 22,050 Hz
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    return soxr.resample(samples[loud[0] : loud[-1] + 1], rate_hz, SAMPLE_RATE_HZ)


def noisy_clip(speech: np.ndarray, rng: np.random.Generator) -> bytes:
    """FLAC file: `speech` at a random place in CLIP_SECONDS of coloured noise at a random SNR."""
    length = int(CLIP_SECONDS * SAMPLE_RATE_HZ)
    speech = speech[:length]
    start = rng.integers(length - len(speech) + 1)
    spectrum = np.fft.rfft(rng.standard_normal(length))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** rng.uniform(0.2, 0.9)  # white to pink
    noise = np.fft.irfft(spectrum, length)
    snr = 10 ** (rng.uniform(*SNR_DB) / 10)
    clip = noise * np.sqrt(np.mean(speech**2) / snr / np.mean(noise**2))
    clip[start : start + len(speech)] += speech
    steps = np.round(clip / np.abs(clip).max() * rng.uniform(0.3, 0.9) * 32768 / QUANTISATION_STEP)
    file = io.BytesIO()
    samples = (steps * QUANTISATION_STEP).astype(np.int16)
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def spoken_digits(seed: int) -> dict[str, pa.Table]:
    """Rows (audio, label, voice); a voice variant lies in one split only."""
    if shutil.which("espeak-ng") is None:
        raise SystemExit("espeak-ng is not installed: apt-get install espeak-ng")
    rng = np.random.default_rng(seed)
    tables = {}
    for split in SPLITS:
        variants = VARIANTS[split].split()
        rows = []
        for word in DIGITS:
            for number in range(CLIPS_PER_DIGIT[split]):
                voice = f"{rng.choice(ACCENTS)}+{variants[number % len(variants)]}"
                pitch, speed = int(rng.integers(20, 81)), int(rng.integers(130, 221))
                clip = noisy_clip(speak(word, voice, pitch, speed), rng)
                rows.append({"audio": clip, "label": word, "voice": voice})
        tables[split] = pa.Table.from_pylist([rows[i] for i in rng.permutation(len(rows))])
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--docs", type=Path, default="/usr/share/doc/python3.11/html/_sources")
    parser.add_argument("--output", type=Path, default="hfbench/bundled/data")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    made = (python_docs(args.docs / "library", args.seed), spoken_digits(args.seed))
    for name, tables in zip(("python-docs", "spoken-digits"), made, strict=True):
        (args.output / name).mkdir(parents=True, exist_ok=True)
        for split, table in tables.items():
            path = args.output / name / f"{split}.parquet"
            pq.write_table(table, path, compression="zstd")
            counts = dict(sorted(Counter(table["label"].to_pylist()).items()))
            print(f"{path}: {table.num_rows} rows, {path.stat().st_size:,} bytes, {counts}")


if __name__ == "__main__":
    main()
