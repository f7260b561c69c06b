"""FastAPI on uvicorn with the small batcher that a team would write by hand: one thread, which takes all that waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core import MAX_BATCH, Painter
from fastapi import FastAPI
from pydantic import BaseModel

painter = Painter()
waiting: asyncio.Queue[tuple[int, asyncio.Future[str]]] = asyncio.Queue()


async def batcher() -> None:
    while True:
        batch = [await waiting.get()]
        while len(batch) < MAX_BATCH and not waiting.empty():
            batch.append(waiting.get_nowait())
        try:
            painted = await asyncio.to_thread(painter.paint, [seed for seed, _ in batch])
        except Exception as error:
            for _, answer in batch:
                answer.set_exception(error)
            continue
        for (_, answer), picture in zip(batch, painted, strict=True):
            if not answer.done():
                answer.set_result(picture)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    task = asyncio.create_task(batcher())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


class Asked(BaseModel):
    seed: int


class Painted(BaseModel):
    b64_json: str


@app.post("/generate")
async def generate(asked: Asked) -> Painted:
    answer = asyncio.get_running_loop().create_future()
    waiting.put_nowait((asked.seed, answer))
    return Painted(b64_json=await answer)
