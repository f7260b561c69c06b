"""FastAPI on uvicorn, nothing batched: each request runs in a thread of the pool."""

from __future__ import annotations

from core import Painter
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
painter = Painter()


class Asked(BaseModel):
    seed: int


class Painted(BaseModel):
    b64_json: str


@app.post("/generate")
def generate(asked: Asked) -> Painted:
    return Painted(b64_json=painter.paint([asked.seed])[0])
