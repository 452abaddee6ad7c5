"""Which device a name means, and in which precision it computes; the GPUs are faked."""

import pytest
import torch

from crossdiff_cli.batch.cluster import numbers_on_host
from crossdiff_cli.errors import DeviceError, TrainingError
from crossdiff_cli.inference.run import _out_of_memory
from crossdiff_cli.model.device import choose_device, choose_devices, exact_float32, inference_dtype, network_dtype
from crossdiff_cli.options import AdaptOptions, SceneSources, TrainingOptions
from crossdiff_cli.training import distributed
from crossdiff_cli.training.distributed import joined
from crossdiff_cli.training.run_adapt import run_adapt


@pytest.fixture
def gpus(monkeypatch):
    """Fake a number of GPUs of one compute capability."""

    def fake(count: int, capability: tuple[int, int] = (9, 0)) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)

    return fake


def test_cuda_and_its_first_device_are_one(gpus):
    gpus(2)
    assert choose_devices("cuda,cuda:0,cuda:1", "auto") == [torch.device("cuda", i) for i in (0, 0, 1)]
    assert choose_device("auto") == torch.device("cuda", 0)
    assert choose_device("cpu:0") == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "indices"), [("auto", (0, 1, 0, 1)), ("cuda", (0, 1, 0, 1)), ("cuda:1", (1, 1, 1, 1))]
)
def test_workers_of_one_machine_take_its_gpus_in_turn(gpus, name, indices):
    gpus(2)
    assert tuple(choose_device(name, worker).index for worker in range(4)) == indices


def test_workers_of_a_cluster_are_numbered_on_their_machines():
    numbers = numbers_on_host(["tcp://a:2", "tcp://b:1", "tcp://a:1", "tcp://b:9"])
    assert numbers == {"tcp://a:1": 0, "tcp://a:2": 1, "tcp://b:1": 0, "tcp://b:9": 1}


@pytest.mark.parametrize(("count", "name"), [(0, "cuda"), (1, "cuda:1"), (2, "gpu"), (2, "cuda:x"), (1, "mps")])
def test_a_device_that_is_not_there_is_refused(gpus, count, name):
    gpus(count)
    with pytest.raises(DeviceError):
        choose_device(name)


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_bf16_is_for_gpus_that_compute_in_it(gpus, capability, dtype):
    gpus(1, capability)
    device = choose_device("cuda")
    assert inference_dtype(device, "auto") == network_dtype(device, "auto") == dtype
    if dtype == torch.bfloat16:
        assert inference_dtype(device, "bf16") == torch.bfloat16
    else:
        with pytest.raises(DeviceError) as caught:
            choose_devices("cuda", "bf16")
        assert caught.value.found == "compute capability 7.5"


def test_instruction_sets_that_pytorch_no_longer_tells_are_taken_for_absent(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert network_dtype(torch.device("cpu"), "auto") == torch.float32


def test_fp32_is_no_tf32_on_a_gpu():
    before = torch.backends.cudnn.allow_tf32
    with exact_float32([torch.device("cpu")]):
        assert torch.backends.cudnn.allow_tf32 == before
    with exact_float32([torch.device("cpu"), torch.device("cuda", 0)]):
        assert torch.backends.cudnn.allow_tf32 is False
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("shapes do not match"), False),
    ],
)
def test_out_of_memory_is_recognised_in_every_wording(error, expected):
    assert _out_of_memory(error) is expected


@pytest.mark.parametrize(("kind", "backend"), [("cpu", "gloo"), ("cuda", "nccl")])
def test_the_backend_of_torchrun_follows_the_device(gpus, monkeypatch, kind, backend):
    gpus(2)
    begun = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed.dist, "init_process_group", begun.append)
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: None)
    with joined(kind) as workers:
        assert workers.count == 2
    assert begun == [backend]


def test_adapt_refuses_several_processes(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError) as caught:
        run_adapt(SceneSources(), tmp_path / "head.safetensors", AdaptOptions(TrainingOptions(steps=1)))
    assert caught.value.found == "2 processes of torchrun"
