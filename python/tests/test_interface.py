"""The package against the C header, and misuse, neither of which needs a device."""

from __future__ import annotations

import pickle
import re
import threading
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from conftest import ICONS, QUICK

import pentimento
from pentimento import _c, _images

#: Functions that Python has no use for: devices of a program's own, callbacks on other threads.
LEFT_OUT = {
    "pmt_context_adopt_d3d12",
    "pmt_context_adopt_metal",
    "pmt_context_adopt_vulkan",
    "pmt_context_log",
    "pmt_job_copy_image",
    "pmt_model_open_files",
    "pmt_vulkan_needs",
}


def refused(function: Callable[..., Any], *parts: str) -> str:
    """What the exception says of something that cannot be."""
    with pytest.raises(pentimento.ArgumentError) as seen:
        function()
    assert seen.value.status == pentimento.Status.BAD_ARGUMENT
    assert all(part in str(seen.value) for part in parts), str(seen.value)
    return str(seen.value)


def test_every_function_is_there_and_used_or_left_out() -> None:
    code = re.sub(r"//[^\n]*", "", _c.header())
    declared = set(re.findall(r"\b(pmt_\w+)\(", code))
    assert len(declared) >= 60 and all(getattr(_c.lib, name) for name in declared)
    package = Path(str(_c.__file__)).parent
    used = {name for file in package.glob("*.py") for name in re.findall(r"\bpmt_\w+", file.read_text())}
    assert declared - used == LEFT_OUT


def test_records_are_the_headers() -> None:
    def names(struct: str) -> list[str]:
        return [name for name, _ in _c.ffi.typeof(struct).fields]

    assert [*pentimento.Device.__annotations__] == names("pmt_device")
    for record, struct in [
        (pentimento.Memory, "pmt_memory"),
        (pentimento.Estimate, "pmt_estimate"),
        (pentimento.Event, "pmt_event"),
        (pentimento.Progress, "pmt_progress"),
    ]:
        assert set(record.__annotations__) == set(names(struct)), struct
    assert set(pentimento.Setting._fields) == {*names("pmt_setting"), "default"}
    renamed = {"reward" if name == "reward_generated" else name for name in names("pmt_metrics")}
    assert {*pentimento.Row.__annotations__} == {*renamed, "iteration"}
    statuses = {s.name.lower(): int(s) for s in pentimento.Status}
    assert {name: number for number, name in _c.enum_names("pmt_status").items()} == statuses


def test_settings_by_name() -> None:
    listed = pentimento.settings()
    rank = next(each for each in listed if each.name == "rank")
    assert (rank.default, rank.expected, bool(rank.about), bool(rank.source)) == ("16", "a whole number, 1 to 4096", True, True)
    assert [each for each in listed if each.unit == "pixels"]
    assert next(s for s in pentimento.settings("grpo") if s.name == "recipe").default == "grpo"
    with pentimento.Settings({"rank": np.int64(5), "optim.rate": np.float32(0.25), "stream": True, "memory": None}) as own:
        assert (own["rank"], own["optim.rate"], own["stream"], own["memory"]) == ("5", "0.25", "true", "none")
        assert len(own) == len(listed) and list(own) == [s.name for s in listed] and "rank" in own
        refused(lambda: own.update({"rank": 0}), "rank: expected a whole number, 1 to 4096, found 0")
        refused(lambda: own.update({"iteration": 5}), "Did you mean iterations?")
        refused(lambda: own.update({"rank": [1]}), "a number, a text")  # type: ignore[dict-item]
        assert "iteration" not in own and own.get("iteration", "none") == "none"
        with pytest.raises(KeyError, match=r"^iteration: expected the name of a setting"):
            own["iteration"]
        refused(lambda: own["x\0y"], "without a zero character")
        refused(lambda: own.pop("rank"), "rank")
        own.check()
        assert own["rank"] == "5"
    refused(lambda: own["rank"], "one that was closed")
    assert own == own and own != pentimento.Settings() and own in {own}
    refused(lambda: pentimento.Settings(recipe="best"), "recipe")


def test_errors_carry_status_and_sentence(tmp_path: Path) -> None:
    with pytest.raises(pentimento.MissingError, match="no/model") as seen:
        pentimento.Model("no/model")
    assert seen.value.status == pentimento.Status.MISSING
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(pentimento.BadFileError, match="bad.safetensors"):
        pentimento.Model(tmp_path / "bad.safetensors")
    assert issubclass(pentimento.ArgumentError, ValueError) and issubclass(pentimento.OutOfMemoryError, MemoryError)


def test_closed_handles_raise_whatever_the_order() -> None:
    context = pentimento.Context()
    model = pentimento.Model(ICONS, context)
    trainer = pentimento.Trainer(model, QUICK)
    context.limit_memory(1 << 30)
    context.limit_memory(None)
    refused(lambda: context.limit_memory(-1), "most")
    context.close()
    context.close()
    refused(context.memory, "context", "closed")
    refused(lambda: pentimento.Model(ICONS, context), "closed")
    assert trainer.resolution == (64, 64)
    refused(lambda: trainer.add_reference(np.zeros((0, 4, 3), np.uint8)))
    model.close()
    refused(lambda: pentimento.Trainer(model), "model", "closed")
    refused(trainer.adapter)  # not started
    trainer.close()
    for call in (trainer.start, trainer.estimate, trainer.state_bytes, lambda: next(iter(trainer))):
        refused(call, "trainer", "closed")
    with pytest.raises(TypeError):
        pickle.dumps(trainer)


def test_arrays_are_checked_and_made_fit() -> None:
    with pentimento.Trainer(ICONS, QUICK) as trainer:
        add = trainer.add_reference
        whole = np.arange(64 * 64 * 4, dtype=np.uint8).reshape(64, 64, 4)
        for good in (
            whole,
            whole[::-2, ::3, :3],
            whole[:, :, 0],
            whole[..., ::-1],
            np.asfortranarray(whole / 255),
            (whole[..., :3] / 255).astype(">f4"),
            (whole / 255).astype(np.float16),
        ):
            assert add(good, "an icon") == 1
        refused(lambda: add(whole[..., :2]), "(height, width, 3 or 4) uint8", "(64, 64, 2)")
        refused(lambda: add(whole.astype(np.float32)), "divide by 255?")
        refused(lambda: add(np.full((4, 4, 3), np.nan)), "0 to 1")
        refused(lambda: add(whole.astype(np.int64)), "int64")
        refused(lambda: add(None), "object ()")
        refused(lambda: add(np.zeros((1, 20000, 3), np.uint8)), "1 to 16384")
        refused(lambda: add(whole, "a\ud800"), "UTF-8")
        refused(lambda: trainer.add_references(7), "paths, images or arrays")
        assert trainer.add_references(np.zeros((3, 8, 8, 3), np.uint8)) == 3
        with pytest.raises(pentimento.MissingError, match="no/pictures"):
            trainer.add_references("no/pictures")


def test_references_as_paths_and_pillow(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    own = image.new("LA", (9, 5), (255, 0))
    exif = image.Exif()
    exif[0x112] = 6  # on its side
    own.convert("RGB").save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.txt").write_text("a cat")
    own.save(tmp_path / "b.png")
    assert _images.array(own, "x").shape == (5, 9, 4)
    assert _images.array(image.open(tmp_path / "a.jpg"), "x").shape == (9, 5, 3)
    with pentimento.Trainer(ICONS, QUICK) as trainer:
        assert trainer.add_references(tmp_path) == 2
        assert trainer.add_references(str(tmp_path / "b.png")) == 1
        assert trainer.add_references([(tmp_path / "b.png", "a dog"), own, (own, None)]) == 3
        with pytest.raises(pentimento.MissingError, match="a dog"):
            trainer.add_references((own, "a dog"))  # two images, as the second one says


def test_prompts_and_numbers_are_checked(model: pentimento.Model) -> None:
    with pentimento.Pipeline(model, {"text_tokens": 64}) as pipeline:
        assert pipeline.resolution > 0
        refused(lambda: pipeline.draw([]), "one or more")
        refused(lambda: pipeline.draw("a", seed=-1), "seed")
        refused(lambda: pipeline.draw("a", seed=1 << 64), "seed")
        refused(lambda: pipeline.draw(["a", "b"], seed=[1]), "one for each prompt")
        refused(lambda: pipeline.draw([1]), "a text, found int")  # type: ignore[list-item]
        refused(lambda: pipeline.draw("a", steps=2.5), "steps", "2.5")  # type: ignore[arg-type]
        refused(lambda: pipeline.draw("a", steps=0), "1 to 1000")
        refused(lambda: pipeline.draw("a", guidance=float("nan")), "guidance")
        refused(lambda: pipeline.draw("a", size=1 << 40), "width")
        refused(lambda: pipeline.draw("a", size=(1, 2, 3)), "a side, or (width, height)")  # type: ignore[arg-type]
        refused(lambda: pipeline.draw("a", seed="x"), "seed")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="found step"):
            pipeline.draw("a", step=3)  # type: ignore[call-arg]
        refused(lambda: pipeline.set_strength(3, 1.0), "id")
        refused(lambda: pipeline.attach(5), "a file's bytes")  # type: ignore[arg-type]
        with pytest.raises(pentimento.Error):
            pipeline.attach(b"no adapter")
        with pytest.raises(pentimento.BadFileError):
            pipeline.attach({"transformer.x.lora_A.weight": np.zeros((2, 2), np.float32)})


def test_threads_get_sentences_not_crashes() -> None:
    """Many threads on one handle, closed in the middle: statuses, nothing else."""
    trainer = pentimento.Trainer(ICONS, QUICK)
    odd: list[BaseException] = []

    def work() -> None:
        for _ in range(50):
            try:
                trainer.add_prompt("icon of snow")
                trainer.add_reference(np.zeros((64, 64, 3), np.uint8))
            except pentimento.ArgumentError:
                pass
            except BaseException as e:
                odd.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    trainer.close()
    for each in threads:
        each.join()
    assert not odd
