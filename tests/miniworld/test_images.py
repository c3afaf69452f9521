"""Images show the attributes of their scenes: things are counted and measured, ground and sky checked by colour."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from c2c_jax.miniworld import images, world
from c2c_jax.miniworld.drawing.background import GROUND, SKIES, background


def scene(cell: int = 0, **changes: str) -> world.Scene:
    rng = np.random.default_rng(cell)
    return dataclasses.replace(world.scene_of(cell, lambda values: values[rng.integers(len(values))]), **changes)


def drawn(scene: world.Scene, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draws a scene; returns image and mask as float arrays."""
    image, mask = images.draw_with_mask(scene, np.random.default_rng(seed))
    return np.asarray(image, np.float64), mask


@pytest.fixture(scope="module")
def every_cell() -> list[tuple[world.Scene, np.ndarray, np.ndarray]]:
    scenes = [scene(cell) for cell in range(world.CELLS)]
    return [(each, *drawn(each, cell)) for cell, each in enumerate(scenes)]


def test_every_source_has_a_drawing():
    assert sorted(images.DRAWINGS) == sorted(world.SOURCES)
    assert set(images.COLOURS) == set(world.COLOURS)
    assert set(SKIES) == set(world.SKIES)


def test_image_is_a_function_of_scene_and_generator():
    first, second = (images.draw(scene(40), np.random.default_rng(3)) for _ in range(2))
    assert (first.size, first.mode) == ((64, 64), "RGB")
    assert first.tobytes() == second.tobytes()
    assert first.tobytes() != images.draw(scene(40), np.random.default_rng(4)).tobytes()


def test_echo_and_noise_do_not_change_the_image():
    dry = images.draw(scene(40, echo="dry", noise="none"), np.random.default_rng(3))
    assert dry.tobytes() == images.draw(scene(40, echo="echo", noise="hum"), np.random.default_rng(3)).tobytes()


def test_things_can_be_counted_and_measured(every_cell):
    for each, _, mask in every_cell:
        labels, count = ndimage.label(mask > 0.1, np.ones((3, 3)))
        assert count == each.count, each
        for rows, columns in ndimage.find_objects(labels):
            longest = max(rows.stop - rows.start, columns.stop - columns.start)
            low, high = {"small": (15, 21), "large": (24, 31) if each.count > 1 else (30, 43)}[each.size]
            assert low <= longest <= high, (each, longest)


def test_nothing_is_cut_off(every_cell):
    for each, _, mask in every_cell:
        assert not mask[[0, -1]].any() and not mask[:, [0, -1]].any(), each


def test_every_large_thing_covers_more_than_every_small_one(every_cell):
    areas = {(source, size): [] for source in world.SOURCES for size in world.SIZES}
    for each, _, mask in every_cell:
        areas[each.source, each.size].append(mask.sum() / each.count)
    for source in world.SOURCES:
        assert min(areas[source, "large"]) > 1.3 * max(areas[source, "small"]), source


def test_the_mask_covers_all_that_is_not_background(every_cell):
    for cell, (each, image, mask) in enumerate(every_cell[::7]):
        behind = background(each.place, each.sky, np.random.default_rng(7 * cell)).clip(0, 255)
        free = mask == 0
        gain = (image[free] * behind[free]).sum() / (behind[free] ** 2).sum()
        assert 0.9 < gain < 1.1
        assert np.abs(image - (gain * behind).clip(0, 255))[free].max() < 20
        assert np.abs(image - (gain * behind).clip(0, 255)).max(-1)[mask > 0.9].mean() > 40, each


def test_ground_is_visible_and_green_only_in_a_field(every_cell):
    for each, image, mask in every_cell:
        ground = slice(GROUND, None)
        assert mask[ground].mean() < 0.5, each
        red, green, blue = image[ground][mask[ground] == 0].mean(0)
        assert (green > (red + blue) / 2 + 35) == (each.place == "field"), each


def test_sky_and_colour_are_those_of_the_scene(every_cell):
    names, tints = list(SKIES), np.array(list(SKIES.values()))
    skies = [np.median(image[:44][mask[:44] == 0], 0) for _, image, mask in every_cell]
    named = [names[np.abs(tints - sky).sum(1).argmin()] for sky in skies]
    assert np.mean([name == each.sky for name, (each, _, _) in zip(named, every_cell, strict=True)]) > 0.97
    names, tints = list(images.COLOURS), np.array(list(images.COLOURS.values()))
    for source in ("frog", "phone", "bell", "saw"):
        cell = world.SOURCES.index(source) * len(world.SHARED) + world.SHARED.index((1, "large", "field"))
        for colour in world.COLOURS:
            image, mask = drawn(scene(cell, colour=colour, sky="grey"))
            nearest = np.abs(tints - image[mask == 1][:, None]).sum(-1).argmin(1)
            own = nearest == names.index(colour)
            assert own.mean() > 0.3, (source, colour, own.mean())


def test_boxes_of_any_size_are_placed_separately():
    rng = np.random.default_rng(0)
    for _ in range(300):
        boxes = [tuple(rng.uniform(8, 30, 2).tolist()) for _ in range(rng.integers(1, 4))]
        places = images.corners(boxes, rng)
        for i, ((left, top), (width, height)) in enumerate(zip(places, boxes, strict=True)):
            assert left >= 1 and top >= 1 and left + width <= 63 and top + height <= 63
            for (other_left, other_top), (other_width, other_height) in zip(places[:i], boxes[:i], strict=True):
                across = max(left - other_left - other_width, other_left - left - width)
                down = max(top - other_top - other_height, other_top - top - height)
                assert max(across, down) > 1.99
