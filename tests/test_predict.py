"""Image files of any make become what the network was trained on; what is none is refused."""

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from draw_digits import DIGITS, FOLDER, STYLES, drawn
from PIL import Image

from mlp import load, train
from mlp.composition import compose
from mlp.data import load as load_data
from mlp.images import prepare
from sweeps.runs.errors import InputError

HAND_DRAWN = {FOLDER / f"{name}-{digit}.png": digit for name, digit in zip(STYLES, (4, 9, 2, 5), strict=True)}


def test_hand_drawn_digits_are_recognised(command, real):
    out, run_id = real
    done = command(run_id, *HAND_DRAWN, "--out", out, module="mlp.predict", timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    said, header, *rows = (line.split() for line in done.stdout.splitlines())
    assert said[:2] == ["<Model", f"{run_id}:"]
    assert header == ["image", "class", *(f"p({k})" for k in range(10))]
    assert {row[0]: int(row[1]) for row in rows} == {str(path): digit for path, digit in HAND_DRAWN.items()}
    assert all(sum(map(float, row[2:])) == pytest.approx(1, abs=0.01) for row in rows)


def test_json_is_what_python_gets(command, real):
    out, run_id = real
    done = command(run_id[:8], *HAND_DRAWN, "--json", "--out", out, module="mlp.predict")
    answers = json.loads(done.stdout)
    model = load(run_id, out)
    pixels = np.stack([prepare(path, "mnist") for path in HAND_DRAWN])
    assert [answer["class"] for answer in answers] == model.predict(pixels).tolist()
    assert np.allclose([answer["probabilities"] for answer in answers], model.predict_proba(pixels))


def test_four_looks_of_ten_digits(real, tmp_path):
    out, run_id = real
    pixels, labels = [], []
    for look in STYLES.values():
        for digit in DIGITS:
            drawn(digit, **look).save(tmp_path / "digit.png")
            pixels.append(prepare(tmp_path / "digit.png", "mnist"))
            labels.append(digit)
    assert np.count_nonzero(load(run_id, out).predict(np.stack(pixels)) == labels) >= 36


def test_mnist_s_form_is_kept_by_mnist_s_own_images(tmp_path):
    """Saved as files they come back as they were: the form is theirs."""
    test = load_data("mnist", {"holdout": 0, "holdout_seed": 0}).test
    same = 0
    for pixels in test.x[:100]:
        Image.fromarray(pixels.reshape(28, 28)).save(tmp_path / "digit.png")
        same += np.array_equal(prepare(tmp_path / "digit.png", "mnist"), pixels)
    assert same >= 75


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_kinds_of_files(tmp_path, kind):
    image = drawn(4, **STYLES["marker"])
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b", format=kind)
    a, b = (prepare(tmp_path / name, "mnist").astype(float) for name in ("a.png", "b"))
    assert np.abs(a - b).mean() < 6


def variants(image):
    """One drawing in the modes that a file may have."""
    array = np.asarray(image)
    yield Image.fromarray(255 - array)
    yield image.convert("RGB").quantize(16)
    yield Image.fromarray(array.astype(np.uint16) * 64)
    yield image.resize((1900, 1900))
    ink = np.zeros((*array.shape, 4), np.uint8)
    ink[..., 3] = 255 - array
    yield Image.fromarray(ink)  # black on nothing
    ink[..., :3] = 255
    yield Image.fromarray(ink)  # white on nothing
    rough = array + np.random.default_rng(0).normal(0, 4, array.shape)
    yield Image.fromarray(np.clip(rough, 0, 255).astype(np.uint8))
    turned = image.rotate(90)
    turned.getexif()[0x112] = 6
    yield turned


def test_modes_polarity_transparency_noise_and_orientation_do_not_matter(tmp_path):
    image = drawn(4, **STYLES["marker"])
    image.save(tmp_path / "plain.png")
    plain = prepare(tmp_path / "plain.png", "mnist").astype(float)
    for variant in variants(image):
        variant.save(tmp_path / "variant.png", exif=variant.getexif())
        assert np.abs(prepare(tmp_path / "variant.png", "mnist") - plain).mean() < 12


def bomb(path, side):
    """A PNG of a few bytes that promises side × side pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


def test_what_is_no_digit_s_image_is_one_line(command, real, tmp_path):
    out, run_id = real
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "page.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    Image.new("L", (50, 50), 200).save(tmp_path / "blank.png")
    whole = (FOLDER / "marker-4.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    bomb(tmp_path / "large.png", 8000)
    bomb(tmp_path / "bomb.png", 60_000)
    os.mkfifo(tmp_path / "pipe.png")
    for name, said in {
        "text.png": "is not an image in a supported format: PNG, JPEG",
        "page.eps": "is not an image in a supported format",
        "blank.png": "is blank",
        "cut.png": "cannot be read: ",
        "large.png": "has 8000 × 8000 pixels",
        "bomb.png": "cannot be read: Image size",
        "pipe.png": "is not a file",
        "none.png": "cannot be read: No such file",
        ".": "is not a file",
    }.items():
        with pytest.raises(InputError, match=said):
            prepare(tmp_path / name, "mnist")
    done = command(run_id, "text.png", "--out", out, module="mlp.predict")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: image=text.png: is not an image")
    assert done.stderr.count("\n") == 1
    assert command("none", "text.png", "--out", out, module="mlp.predict").returncode == 2
    assert command("none", module="mlp.predict").returncode == 2


def test_a_damaged_run_is_status_1(command, small):
    run = train(compose(*small)).path
    (run / "checkpoint.npz").write_bytes(b"")
    done = command(str(run), FOLDER / "marker-4.png", module="mlp.predict")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "damaged checkpoint" in done.stderr


def test_other_datasets_have_forms_of_their_own_or_say_that_none_is_known(command, small):
    path = FOLDER / "crayon-2.png"
    article = prepare(path, "fashion_mnist").reshape(28, 28)
    assert article[0].max() > 0
    assert article[-1].max() > 0
    red, _, blue = prepare(path, "cifar10").reshape(3, 32, 32)
    assert int(red[0, 0]) - int(blue[0, 0]) == pytest.approx(25, abs=2)
    done = command(str(train(compose(*small)).path), path, module="mlp.predict")
    assert done.returncode == 2
    assert "data=npz: the form of its images is not known; known: mnist, fashion_mnist, cifar10" in done.stderr


def test_files_of_these_tests_are_small():
    assert sum(Path(path).stat().st_size for path in FOLDER.iterdir()) < 20_000
