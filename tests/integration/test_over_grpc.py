"""Whole sessions over gRPC with TLS, SQLite and blobs on disk, client library against real server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from secagg.client import connect
from secagg.lora.factor_merging import adapter_to_vector
from secagg.lora.reader import read_adapter
from secagg.protocol.session import ClientPolicy
from tests.support.audit import complaints
from tests.support.cohort import key_of
from tests.support.service import open_example_session, serving, tiny_adapter


async def contribute(service, session, adapter: Path, identity, state: Path):
    async with await connect(service.address, service.key, service.tls) as coordinator:
        participation = await coordinator.contribute(session, adapter, identity, state, ClientPolicy())
        return await participation.result()


def test_contributors_over_tls_get_the_mean_of_their_adapters(tmp_path: Path) -> None:
    async def run() -> None:
        identities = [key_of(f"id{i}") for i in range(4)]
        adapters = [tiny_adapter(tmp_path / f"adapter{i}", i) for i in range(4)]
        async with serving(tmp_path / "coordinator") as service:
            parameters = await open_example_session(service, identities, adapters[0])
            results = await asyncio.gather(
                *(
                    contribute(service, parameters.session, adapter, identity, tmp_path / "clients")
                    for adapter, identity in zip(adapters, identities, strict=True)
                )
            )
        vectors = [adapter_to_vector(one, one.layout) for one in (read_adapter(path, None) for path in adapters)]
        step = float(parameters.encoding.clip_norm) / (2**25 - 1)
        for result in results:
            assert result.contributors == 4
            assert np.abs(result.mean - np.mean(vectors, axis=0)).max() < step
        results[0].write_adapter(tmp_path / "merged")
        merged = read_adapter(tmp_path / "merged", "tiny-base")
        assert np.array_equal(adapter_to_vector(merged, merged.layout), results[0].mean)
        # What everybody computed is what is published, and an auditor finds nothing wrong with it.
        record = tmp_path / "coordinator" / "record"
        published = record / "sessions" / parameters.session.hex() / "aggregate"
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            assert (published / name).read_bytes() == (tmp_path / "merged" / name).read_bytes()
        assert complaints(record) == []

    asyncio.run(run())
