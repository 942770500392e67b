"""`Refine` among kornia's own augmentations: what it changes, what it leaves, how it travels."""

import copy
import pickle

import kornia.augmentation as K
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from simgan_aug.errors import CheckpointError, ConfigError, ImageError
from simgan_aug.inference import ImageRefiner
from simgan_aug.transforms import kornia as ours
from simgan_aug.transforms.kornia import Refine

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
PICKED = torch.tensor([True, False, True, False])
both = pytest.mark.parametrize("dense", [False, True])


class Recorder(nn.Module):
    """Brightens by 12 % of the range and remembers how many images it was shown at a time."""

    receptive_field = 1

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.24))
        self.shown = []

    def forward(self, images):
        self.shown.append(len(images))
        return images + self.weight


@pytest.fixture
def network():
    return Recorder()


@pytest.fixture
def recorded(network):
    return ImageRefiner(network, 3, device="cpu", precision="fp32")


@pytest.fixture
def refiner(refiner_file):
    return ImageRefiner.load(refiner_file, device="cpu", precision="fp32")


@pytest.fixture
def images():
    return torch.rand(4, 3, 12, 20, generator=torch.Generator().manual_seed(0))


def params(images, picked=PICKED, strength=1.0, seed=7):
    """What kornia hands a transform for images of which some are picked."""
    count = len(images)
    return {
        "batch_prob": picked[:count].float(),
        "seed": torch.arange(seed, seed + count),
        "strength": torch.full((count,), strength, dtype=torch.float64),
        "forward_input_shape": torch.tensor(images.shape),
    }


def forms(transform):
    """Seeds and strengths of the last call, of all images."""
    return {name: transform._params[name].tolist() for name in ("seed", "strength")}


# What it does to pixels


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_are_those_of_the_image_refiner(refiner, images, channels, dtype):
    images = torch.cat([images, images[:, :1]], dim=1)[:, :channels].to(dtype)
    transform = Refine(refiner, p=1, strength=(0.3, 0.9))

    out = transform(images)

    assert torch.equal(out, refiner(images, **forms(transform)))
    assert not torch.equal(out, images)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3])
@both
def test_dtype_and_shape_stay_and_nothing_is_shared_with_what_came(
    refiner, images, channels, dtype, dense
):
    images = images[:, :channels].to(dtype)
    before = images.clone()

    for p in (0, 0.5, 1):
        out = Refine(refiner, p, dense=dense)(images)

        assert (out.dtype, out.shape, out.device) == (images.dtype, images.shape, images.device)
        out.zero_()
        assert torch.equal(images, before)


def test_only_the_picked_images_are_shown_to_the_network(recorded, network, images):
    transform = Refine(recorded, p=0.5)

    out = transform(images, params=params(images))

    assert network.shown == [2]
    assert torch.equal(out[~PICKED], images[~PICKED])
    assert torch.equal(out[PICKED], recorded(images[PICKED]))


def test_dense_shows_all_images_and_gives_the_others_back(recorded, network, images):
    transform = Refine(recorded, p=0.5, dense=True)

    out = transform(images, params=params(images))

    assert network.shown == [4]
    assert torch.equal(out[~PICKED], images[~PICKED])
    assert torch.equal(out[PICKED], recorded(images[PICKED]))


def test_dense_asks_for_no_change_of_the_others(recorded, images):
    asked = {}

    def refiner(images, **forms):
        asked.update(forms)
        return recorded(images, **forms)

    Refine(refiner, dense=True)(images, params=params(images, strength=0.5))

    assert asked == {"seed": [7, 8, 9, 10], "strength": [0.5, 0, 0.5, 0]}


@both
def test_an_image_that_is_not_picked_keeps_every_bit(recorded, dense):
    images = torch.tensor([-0.0, 1.0005, 0.3, 1e-40]).reshape(1, 1, 2, 2).repeat(2, 3, 1, 1)
    picked = torch.tensor([False, True])
    for p in (0.5, 1):
        out = Refine(recorded, p, dense=dense).apply_transform(
            images, params(images, picked), {"dense": dense}
        )

        assert torch.equal(out[0].view(torch.int32), images[0].view(torch.int32))
        assert not torch.equal(out[1], images[1])


@both
def test_an_image_has_its_own_seed_whoever_is_picked_beside_it(refiner, images, dense):
    transform = Refine(refiner, p=0.5, dense=dense)

    out = transform(images, params=params(images, strength=0.5))

    alone = torch.cat([refiner(images[i : i + 1], seed=7 + i, strength=0.5) for i in (0, 2)])
    torch.testing.assert_close(out[PICKED], alone)


@both
def test_strength_zero_gives_the_images_back(refiner, images, dense):
    assert torch.equal(Refine(refiner, p=1, strength=0, dense=dense)(images), images)


def test_no_images_are_no_images(refiner):
    out = Refine(refiner, p=1)(torch.rand(0, 3, 8, 8))

    assert out.shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    "images",
    [
        torch.full((2, 3, 8, 8), 255.0),
        torch.full((2, 3, 8, 8), -0.5),
        torch.full((2, 3, 8, 8), torch.nan),
        torch.rand(2, 5, 8, 8),
    ],
)
@both
def test_an_image_that_no_refiner_takes_is_an_image_error(refiner, images, dense):
    with pytest.raises(ImageError):
        Refine(refiner, p=1, dense=dense)(images)


# What is drawn


def test_draws_repeat_under_manual_seed_and_differ_between_calls(refiner, images):
    transform = Refine(refiner, p=0.5, strength=(0.2, 0.8))
    torch.manual_seed(5)
    first, second = transform(images.repeat(4, 1, 1, 1)), transform(images.repeat(4, 1, 1, 1))
    torch.manual_seed(5)

    again = transform(images.repeat(4, 1, 1, 1))

    assert torch.equal(again, first)
    assert not torch.equal(second, first)


def test_each_image_has_a_seed_and_a_strength_of_its_own(refiner):
    drawn = Refine(refiner, strength=(0.2, 0.8)).generate_parameters((500, 3, 8, 8))

    assert drawn["seed"].dtype == torch.int64
    assert len(drawn["seed"].unique()) == len(drawn["strength"].unique()) == 500
    assert drawn["seed"].min() >= 0
    assert drawn["seed"].max() > 2**62
    assert 0.2 <= drawn["strength"].min() < 0.25
    assert 0.75 < drawn["strength"].max() <= 0.8


def test_one_strength_is_that_very_number(refiner):
    drawn = Refine(refiner, strength=0.3).generate_parameters((3, 3, 8, 8))

    assert drawn["strength"].tolist() == [0.3, 0.3, 0.3]


@both
def test_params_replay_a_call_to_the_bit(refiner, images, dense):
    transform = Refine(refiner, p=0.5, strength=(0, 1), dense=dense)
    out = transform(images)
    drawn = copy.deepcopy(transform._params)
    transform(images)

    assert torch.equal(transform(images, params=drawn), out)
    assert torch.equal(Refine(refiner, p=0, dense=dense)(images, params=drawn), out)
    assert torch.equal(Refine(refiner, p=1, dense=dense)(images, params=drawn), out)


def test_draws_are_the_same_whatever_the_dtype_of_the_host(refiner, images):
    host, half = (nn.Sequential(Refine(refiner, p=0.5, strength=(0, 1))) for _ in range(2))
    half.half()
    torch.manual_seed(1)
    out = host(images)
    torch.manual_seed(1)

    assert torch.equal(half(images), out)


@both
def test_with_p_0_the_network_rests(recorded, network, images, dense):
    out = Refine(recorded, p=0, dense=dense)(images)

    assert torch.equal(out, images)
    assert network.shown == []


@both
def test_with_p_1_all_images_are_refined(recorded, network, images, dense):
    out = Refine(recorded, p=1, dense=dense)(images)

    torch.testing.assert_close(out, (images + 0.12).clamp(max=1))
    assert network.shown == [4]


def test_p_is_the_share_of_images_refined(recorded):
    transform = Refine(recorded, p=0.3)
    torch.manual_seed(0)

    out = transform(torch.zeros(2000, 3, 1, 1))

    assert 0.27 < (out > 0).float().mean() < 0.33


def test_p_batch_picks_whole_batches(recorded, network, images):
    transform = Refine(recorded, p=1, p_batch=0.5)
    torch.manual_seed(0)

    for _ in range(40):
        transform(images)

    assert set(network.shown) == {4}
    assert 10 <= len(network.shown) <= 30
    assert torch.equal(Refine(recorded, p=1, p_batch=0)(images), images)


def test_same_on_batch_has_one_die_one_seed_and_one_strength(refiner, images):
    same = images[:1].repeat(6, 1, 1, 1)
    transform = Refine(refiner, p=0.5, strength=(0, 1), same_on_batch=True)
    torch.manual_seed(0)
    refined = 0

    for _ in range(20):
        out = transform(same)
        torch.testing.assert_close(out, out[:1].expand_as(out))
        assert len(transform._params["seed"].unique()) == 1
        assert len(transform._params["strength"].unique()) == 1
        refined += not torch.equal(out, same)

    assert 3 <= refined <= 17


def test_a_container_can_ask_for_the_same_on_a_batch(refiner, images):
    container = K.AugmentationSequential(Refine(refiner, p=1, strength=(0, 1)), same_on_batch=True)

    out = container(images[:1].repeat(3, 1, 1, 1))

    torch.testing.assert_close(out, out[:1].expand_as(out))


def test_all_frames_of_a_video_have_its_seed(refiner, images):
    video = images[:2, None].repeat(1, 3, 1, 1, 1)  # (B, T, C, H, W), every frame the same

    out = K.VideoSequential(Refine(refiner, p=1), data_format="BTCHW")(video)

    torch.testing.assert_close(out, out[:, :1].expand_as(out))
    assert not torch.equal(out, video)


# What kornia's own tests ask of every augmentation


def test_it_is_an_augmentation_of_kornia(refiner):
    transform = Refine(refiner, p=1)
    images = torch.ones(4, 3, 5, 6)

    drawn = transform.forward_parameters((4, 3, 5, 6))
    matrix = transform.compute_transformation(images, drawn, transform.flags)
    out = transform.apply_transform(images, drawn, transform.flags, matrix)

    assert isinstance(transform, K.AugmentationBase2D)
    assert isinstance(drawn, dict)
    assert out.shape == images.shape
    assert torch.equal(matrix, torch.eye(3).expand(4, 3, 3))


def test_its_transform_matrix_is_the_identity(refiner, images):
    for p in (0, 0.5, 1):
        transform = Refine(refiner, p=p)
        transform(images)

        assert torch.equal(transform.transform_matrix, torch.eye(3).expand(4, 3, 3))


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("p", [0, 1])
def test_an_image_without_a_batch_becomes_a_batch_of_one_or_stays(refiner, shape, p):
    image = torch.rand(shape)

    assert Refine(refiner, p)(image).shape == (1,) * (4 - len(shape)) + shape
    assert Refine(refiner, p, keepdim=True)(image).shape == shape


def test_keepdim_changes_no_pixel(refiner, images):
    transform = Refine(refiner, p=1, keepdim=True)

    out = transform(images[0])

    assert torch.equal(out, refiner(images[:1], **forms(transform))[0])


@pytest.mark.parametrize("shape", [(2,), (1, 2, 3, 4, 5)])
def test_what_is_no_image_is_refused(refiner, shape):
    with pytest.raises(ValueError, match="shape"):
        Refine(refiner)(torch.rand(shape))


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 4, 5, dtype=torch.uint8), "a picture"])
def test_what_is_no_float_tensor_is_refused(refiner, images):
    with pytest.raises((TypeError, AttributeError)):
        Refine(refiner)(images)


def test_a_container_of_two_is_the_one_after_the_other(refiner, images):
    first, second = Refine(refiner, p=1), Refine(refiner, p=1, strength=(0, 1))
    container = K.AugmentationSequential(first, second)
    torch.manual_seed(42)
    expected = second(first(images))
    torch.manual_seed(42)

    assert torch.equal(container(images), expected)
    assert torch.equal(container.transform_matrix, torch.eye(3).expand(4, 3, 3))


def test_a_container_replays_its_params(refiner, images):
    container = K.AugmentationSequential(
        Refine(refiner, strength=(0, 1)), K.RandomHorizontalFlip(), random_apply=2
    )
    out = container(images)

    assert torch.equal(container(images, params=container._params), out)


def test_the_inverse_of_a_container_leaves_it_refined(refiner, images):
    container = K.AugmentationSequential(Refine(refiner, p=1), K.RandomHorizontalFlip(p=1))

    out = container.inverse(container(images))

    assert torch.equal(out, refiner(images, **forms(container[0])))


@both
def test_kornia_0_8_passes_the_picked_images_alone_and_all_of_them_are_refined(
    refiner, images, dense
):
    given = params(images[PICKED], strength=0.5) | {"batch_prob": PICKED.float()}

    out = Refine(refiner).apply_transform(images[PICKED], given, {"dense": dense})

    assert torch.equal(out, refiner(images[PICKED], seed=[7, 8], strength=0.5))


# What happens to labels


def boxes(mode):
    """(4, 30) boxes with fractions, as kornia wants them under a data key."""
    corner, size = torch.rand(2, 4, 30, 2, generator=torch.Generator().manual_seed(3)) * 500 + 1
    if mode == "bbox_xywh":  # kornia itself keeps only 2 ** -14 px and coarser of these
        return torch.cat([corner, size], dim=-1).mul(8).round() / 8
    low, high = corner, corner + size
    if mode == "bbox_xyxy":
        return torch.cat([low, high], dim=-1)
    return torch.stack(
        [
            low,
            torch.stack([high[..., 0], low[..., 1]], -1),
            high,
            torch.stack([low[..., 0], high[..., 1]], -1),
        ],
        dim=-2,
    )


LABELS = {
    "bbox": boxes("bbox"),
    "bbox_xyxy": boxes("bbox_xyxy"),
    "bbox_xywh": boxes("bbox_xywh"),
    "keypoints": torch.rand(4, 21, 2) * 500,
    "mask": torch.rand(4, 1, 12, 20),
    "label": torch.arange(4),
}
MASKS = [
    torch.rand(4, 2, 12, 20).double(),  # kornia itself rounds a mask of floats to the images' dtype
    torch.randint(0, 2**24, (4, 1, 12, 20)),
    torch.randint(0, 256, (4, 1, 12, 20), dtype=torch.uint8),
    torch.rand(4, 1, 12, 20) > 0.5,
]


@pytest.mark.parametrize("p", [0, 0.5, 1])
@both
def test_no_label_moves_by_a_bit(refiner, images, p, dense):
    container = K.AugmentationSequential(
        Refine(refiner, p, dense=dense), data_keys=["input", *LABELS]
    )

    out, *labels = container(images, *(label.clone() for label in LABELS.values()))

    assert torch.equal(out, images) == (p == 0 or not container[0]._params["batch_prob"].any())
    for after, before in zip(labels, LABELS.values(), strict=True):
        assert after.dtype == before.dtype
        assert torch.equal(after, before)


@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: str(mask.dtype))
@pytest.mark.parametrize("p", [0, 0.5, 1])
def test_a_mask_of_any_dtype_stays_as_it_is(refiner, images, mask, p):
    container = K.AugmentationSequential(Refine(refiner, p), data_keys=["input", "mask"])

    _, out = container(images, mask.clone())

    assert out.dtype == mask.dtype
    assert torch.equal(out, mask)


def test_a_flip_after_it_moves_labels_as_a_flip_alone(refiner, images):
    keys = ["input", *LABELS]
    flip = K.AugmentationSequential(K.RandomHorizontalFlip(p=1), data_keys=keys)
    container = K.AugmentationSequential(
        Refine(refiner, p=0.5), K.RandomHorizontalFlip(p=1), data_keys=keys
    )

    _, *labels = container(images, *LABELS.values())

    _, *expected = flip(images, *LABELS.values())
    assert all(torch.equal(*pair) for pair in zip(labels, expected, strict=True))


def test_a_dict_may_hold_images_and_labels_by_kornias_names(refiner, images):
    container = K.AugmentationSequential(Refine(refiner, p=1), data_keys=None)

    out = container({"image": images, "sizes": (12, 20), **LABELS})

    assert torch.equal(out["image"], refiner(images, **forms(container[0])))
    assert out["sizes"] == (12, 20)
    assert all(torch.equal(out[name], label) for name, label in LABELS.items())


def test_in_a_dict_without_data_keys_kornia_takes_image_id_for_an_image(refiner, images):
    container = K.AugmentationSequential(Refine(refiner, p=1), data_keys=None)

    with pytest.raises(TypeError, match="int64"):
        container({"image": images, "image_id": torch.arange(4)})


def test_in_a_dict_without_data_keys_even_a_mask_is_refined_if_it_is_named_image_mask(
    refiner, images
):
    container = K.AugmentationSequential(Refine(refiner, p=1), data_keys=None)

    out = container({"image": images, "image_mask": LABELS["mask"]})

    assert not torch.equal(out["image_mask"], LABELS["mask"])


def test_named_data_keys_leave_no_doubt(refiner, images):
    batch = {"image": images, "image_mask": LABELS["mask"], "image_id": torch.arange(4)}
    container = K.AugmentationSequential(Refine(refiner, p=1), data_keys=["image", "mask"])

    out, mask = container(batch["image"], batch["image_mask"])

    assert not torch.equal(out, images)
    assert torch.equal(mask, LABELS["mask"])


# What the host sees of the network


@pytest.mark.parametrize("by", ["name", "object"])
def test_nothing_of_the_network_reaches_the_host(refiner_file, recorded, images, by):
    host = nn.Sequential(
        Refine(refiner_file if by == "name" else recorded, p=1), nn.Conv2d(3, 1, 1)
    )
    host(images)

    assert [name for name, _ in host.named_parameters()] == ["1.weight", "1.bias"]
    assert list(host.state_dict()) == ["1.weight", "1.bias"]
    assert list(host.buffers()) == []
    assert [type(module) for module in host.modules()] == [nn.Sequential, Refine, nn.Conv2d]


def test_what_the_host_does_to_itself_does_not_touch_the_network(recorded, network, images):
    host = nn.Sequential(Refine(recorded, p=1), nn.Conv2d(3, 1, 1))
    before = host[0](images)

    host.train()
    host.requires_grad_(True)
    host.half()

    assert not network.training
    assert not network.weight.requires_grad
    assert network.weight.dtype == torch.float32
    assert torch.equal(host[0](images), before)


def test_a_network_as_such_is_refused_for_the_host_would_train_it(network):
    with pytest.raises(ConfigError, match="ImageRefiner"):
        Refine(network)


@both
def test_a_task_network_trains_on_what_comes_out(recorded, network, images, dense):
    host = nn.Sequential(Refine(recorded, 0.5, dense=dense), nn.Conv2d(3, 1, 3), nn.Flatten())
    optimizer = torch.optim.SGD(host.parameters(), lr=0.1)
    before = host[1].weight.clone()

    loss = host(images).square().mean()
    loss.backward()
    optimizer.step()

    assert host[1].weight.grad.abs().sum() > 0
    assert not torch.equal(host[1].weight, before)
    assert network.weight.grad is None
    assert network.weight.item() == pytest.approx(0.24)


@both
def test_a_gradient_passes_an_image_that_is_not_picked_alone(recorded, images, dense):
    images.requires_grad_(True)
    transform = Refine(recorded, p=0.5, dense=dense)

    transform(images, params=params(images)).sum().backward()

    assert torch.equal(images.grad[~PICKED], torch.ones(2, 3, 12, 20))
    assert torch.equal(images.grad[PICKED], torch.zeros(2, 3, 12, 20))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_around_it_changes_no_bit(refiner, images, channels, dtype):
    images = images[:, :channels]
    host = nn.Sequential(Refine(refiner, p=1), nn.Conv2d(channels, 1, 3))
    drawn = params(images, torch.ones(4))
    expected = host[0](images, params=drawn)

    with torch.autocast("cpu", dtype):
        out = host[0](images, params=drawn)
        host(images).float().sum().backward()

    assert out.dtype == torch.float32
    assert torch.equal(out, expected)


# What it is made of, and how it travels


@pytest.mark.parametrize(
    "options",
    [
        {"strength": -0.1},
        {"strength": 1.1},
        {"strength": float("nan")},
        {"strength": (0.9, 0.1)},
        {"strength": (0, 2)},
        {"strength": (0.1, 0.2, 0.3)},
        {"p": -0.1},
        {"p": 1.5},
        {"p_batch": 2},
        {"device": "toaster"},
        {"precision": "fp8"},
    ],
)
def test_an_impossible_setting_is_a_config_error(refiner_file, options):
    with pytest.raises(ConfigError):
        Refine(refiner_file, **options)


def test_an_open_refiner_has_its_device_and_precision_already(refiner):
    for options in ({"device": "cpu"}, {"precision": "bf16"}):
        with pytest.raises(ConfigError):
            Refine(refiner, **options)


@pytest.mark.parametrize("refiner", ["no-such-refiner", "folder/no_such_file.safetensors"])
def test_a_missing_refiner_is_an_error_at_once(refiner):
    with pytest.raises(CheckpointError):
        Refine(refiner)


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_refiner_may_be_a_path(refiner_file, images, kind):
    transform = Refine(kind(refiner_file), p=1, device="cpu")

    out = transform(images)

    expected = ImageRefiner.load(refiner_file, device="cpu")
    assert torch.equal(out, expected(images, **forms(transform)))


def test_precision_is_the_refiners(refiner_file, images):
    transform = Refine(refiner_file, p=1, device="cpu", precision="bf16")

    out = transform(images)

    expected = ImageRefiner.load(refiner_file, device="cpu", precision="bf16")
    assert torch.equal(out, expected(images, **forms(transform)))


def test_the_repr_shows_the_arguments(refiner_file):
    shown = repr(
        Refine(refiner_file, 0.25, (0.1, 0.9), p_batch=0.75, same_on_batch=True, dense=True)
    )

    for part in (
        f"refiner={refiner_file}",
        "p=0.25",
        "strength=(0.1, 0.9)",
        "p_batch=0.75",
        "same_on_batch=True",
        "device=auto",
        "precision=auto",
        "dense=True",
    ):
        assert part in shown


def test_the_repr_of_one_that_holds_an_open_refiner_says_so(refiner):
    assert "refiner=ImageRefiner" in repr(Refine(refiner))


@pytest.mark.parametrize("by", ["name", "object"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_does_the_same_for_itself(refiner_file, refiner, images, by, copied):
    transform = Refine(refiner_file if by == "name" else refiner, p=0.5)
    out = transform(images)

    twin = copied(transform)

    assert torch.equal(twin(images, params=transform._params), out)
    assert repr(twin) == repr(transform)
    assert twin._handle != transform._handle


def test_it_pickles_as_the_name_of_a_file(refiner_file, images):
    transform = Refine(refiner_file, p=1, device="cpu")
    transform(images)

    assert len(pickle.dumps(transform)) < 4096


class Renders(Dataset):
    def __init__(self, refine):
        self.refine = refine

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.refine(torch.full((3, 8, 8), 0.5))[0]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_draw_differently_and_repeat_under_the_loaders_seed(refiner_file, method):
    data = Renders(Refine(refiner_file, p=1))

    def epoch():
        seeded = torch.Generator().manual_seed(3)
        loader = DataLoader(
            data, 2, num_workers=2, multiprocessing_context=method, generator=seeded
        )
        return torch.cat(list(loader))

    first = epoch()

    assert len(first.flatten(1).unique(dim=0)) == 4
    assert torch.equal(first, epoch())


# Compiled


@pytest.fixture(autouse=True)
def _fresh_compiler():
    yield
    torch._dynamo.reset()


def compiled(module, backend="aot_eager"):
    return torch.compile(module, fullgraph=True, backend=backend)


@pytest.mark.parametrize("p", [0, 0.5, 1])
@both
def test_compiled_it_gives_the_same_bits(refiner, images, p, dense):
    transform = Refine(refiner, p, (0, 1), dense=dense)
    for batch in (images, images[:3], images.to(memory_format=torch.channels_last)):
        drawn = transform.forward_parameters(batch.shape)

        out = compiled(transform)(batch, params=drawn)

        assert torch.equal(out, transform(batch, params=drawn))


@both
def test_compiled_it_draws(refiner, images, dense):
    transform = compiled(Refine(refiner, p=1, dense=dense))

    first, second = transform(images), transform(images)

    assert not torch.equal(first, images)
    assert not torch.equal(first, second)


def test_compiled_it_shows_the_network_what_it_shows_uncompiled(recorded, network, images):
    for dense, shown in ((False, 2), (True, 4)):
        network.shown.clear()

        compiled(Refine(recorded, dense=dense))(images, params=params(images))

        assert network.shown == [shown]


@both
def test_a_compiled_training_step_gives_the_gradients_of_an_uncompiled_one(refiner, images, dense):
    host = nn.Sequential(Refine(refiner, 0.5, dense=dense), nn.Conv2d(3, 1, 3), nn.Flatten())
    drawn = host[0].forward_parameters(images.shape)

    def step(images, drawn):
        return host[2](host[1](host[0](images, params=drawn))).square().mean()

    gradients = []
    for function in (step, compiled(step)):
        leaf = images.clone().requires_grad_(True)
        gradients.append(torch.autograd.grad(function(leaf, drawn), [leaf, host[1].weight]))

    torch.testing.assert_close(*gradients)


@both
def test_a_container_that_kornia_can_compile_stays_so(refiner, images, dense):
    container = K.AugmentationSequential(
        Refine(refiner, 0.5, dense=dense), K.RandomHorizontalFlip(), data_keys=["input", *LABELS]
    )
    container.disable_features = True  # kornia 0.9.0 imports within the call without it
    expected = container(images, *LABELS.values())

    out = compiled(container)(images, *LABELS.values(), params=container._params)

    assert all(torch.equal(*pair) for pair in zip(out, expected, strict=True))


def test_a_graph_finds_the_transform_that_it_was_made_of(refiner_file, recorded, images):
    brighter = compiled(Refine(recorded, p=1))
    other = compiled(Refine(refiner_file, p=1, device="cpu"))
    twin = compiled(copy.deepcopy(Refine(recorded, p=1)))

    for _ in range(2):
        torch.testing.assert_close(brighter(images), recorded(images))
        torch.testing.assert_close(twin(images), recorded(images))
        assert not torch.allclose(other(images), recorded(images))


def test_a_transform_that_is_gone_is_not_kept(recorded):
    transform = Refine(recorded)
    handle = transform._handle

    assert ours._TRANSFORMS[handle] is transform
    del transform
    assert handle not in ours._TRANSFORMS


@pytest.mark.parametrize(
    "kind",
    [
        lambda images: images,
        lambda images: images.half(),
        lambda images: images.to(memory_format=torch.channels_last),
        lambda images: images[:1].expand(4, -1, -1, -1),
        lambda images: images[..., ::2],
        lambda images: images[:0],
    ],
)
@both
def test_the_op_is_what_it_tells_the_compiler(recorded, images, kind, dense):
    images, transform = kind(images), Refine(recorded)
    drawn = params(images)

    torch.library.opcheck(
        ours._opaque,
        (
            images,
            PICKED[: len(images)],
            drawn["seed"],
            drawn["strength"],
            dense,
            transform._handle,
        ),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # torch's own
@both
def test_inductor_gives_the_same_bits(refiner, images, dense):
    transform = Refine(refiner, 0.5, (0, 1), dense=dense)
    container = K.AugmentationSequential(
        Refine(refiner, 0.5, (0, 1), dense=dense),
        K.RandomHorizontalFlip(),
        data_keys=["input", *LABELS],
    )
    container.disable_features = True
    drawn = transform.forward_parameters(images.shape)
    expected = container(images, *LABELS.values())

    out = compiled(transform, "inductor")(images, params=drawn)
    outs = compiled(container, "inductor")(images, *LABELS.values(), params=container._params)

    assert torch.equal(out, transform(images, params=drawn))
    assert all(torch.equal(*pair) for pair in zip(outs, expected, strict=True))
    assert not torch.equal(*(compiled(Refine(refiner, p=1), "inductor")(images) for _ in range(2)))


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
@both
def test_images_stay_on_their_gpu(refiner_file, images, device, dense):
    for p in (0, 0.5, 1):
        transform = Refine(refiner_file, p, device=device, dense=dense)
        out = transform(images.cuda())

        assert out.device == images.cuda().device


@pytest.mark.gpu
def test_images_on_a_gpu_become_what_the_image_refiner_makes_of_them(refiner_file, images):
    transform = Refine(refiner_file, p=1).to("cuda")

    out = transform(images.cuda())

    expected = ImageRefiner.load(refiner_file, "cuda")
    assert torch.equal(out, expected(images.cuda(), **forms(transform)))


@pytest.mark.gpu
def test_seeds_and_strengths_are_the_same_on_a_gpu_and_on_a_cpu(refiner_file, images):
    drawn = []
    for device in ("cpu", "cuda"):
        transform = Refine(refiner_file, p=1, strength=(0, 1)).to(device)
        torch.manual_seed(4)
        transform(images.to(device))
        drawn.append(forms(transform))

    assert drawn[0] == drawn[1]


@pytest.mark.gpu
@pytest.mark.parametrize("mode", [None, "reduce-overhead"])
@both
def test_compiled_on_a_gpu_it_gives_the_same_bits(refiner_file, images, mode, dense):
    images = images.cuda()
    transform = Refine(refiner_file, 0.5, (0, 1), dense=dense)
    drawn = transform.forward_parameters(images.shape)
    graph = torch.compile(transform, fullgraph=True, mode=mode)

    for _ in range(4):  # a CUDA graph is captured at the second or third call
        out = graph(images, params=drawn).clone()

    assert torch.equal(out, transform(images, params=drawn))
