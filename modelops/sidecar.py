"""The sidecar's side of a promotion: its profile of a version is compared with ours, and put again where it differs."""

import asyncio
import io
from pathlib import Path
from urllib.parse import quote

import aiohttp

from modelops import config
from modelops.errors import SidecarError

TIMEOUT_S = 20.0


async def deliver(session: aiohttp.ClientSession, sidecar: config.Sidecar, version: str, path: Path, hash: str) -> bool:
    """Brings a sidecar to hold this profile for a version; whether it had to be put. Raises SidecarError."""
    url = f"{sidecar.url}/v1/profile/{quote(version, safe='')}"
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with session.get(url, timeout=timeout) as answer:
            if answer.status == 200 and (await answer.json()).get("id") == hash:
                return False
            if answer.status not in (200, 404):
                raise SidecarError(f"{url}: expected 200 or 404; got {answer.status}.", recoverable=True)
        headers = {"Content-Type": "application/octet-stream"}
        if sidecar.token_file is not None:
            headers["Authorization"] = f"Bearer {config.read_secret(sidecar.token_file)}"
        data = await asyncio.to_thread(path.read_bytes)
        async with session.put(url, data=io.BytesIO(data), headers=headers, timeout=timeout) as answer:
            if answer.status not in (200, 201):
                said = (await answer.text())[:300]
                raise SidecarError(
                    f"{url}: expected 201 or 200 to the profile; got {answer.status} {said}",
                    recoverable=answer.status >= 500 or answer.status in (408, 429),
                )
            return True
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise SidecarError(f"{url}: no answer: {error or type(error).__name__}.", recoverable=True) from error
