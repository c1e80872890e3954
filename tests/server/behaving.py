"""What clients ask for that behave, and what is right."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from rwkv_py import Model, Session
from server.protocols import NEXT, PROTOCOLS, STATES, post
from server.serving import serve

COMPLETIONS, RESPONSES = PROTOCOLS[1], PROTOCOLS[2]
WRITE: dict[str, Any] = {"max_tokens": 24, "temperature": 0.8, "top_p": 0.9}
MOST_KEPT = 3  # of each kind, by each client


class Wrong(Exception):
    """What ought not to have happened."""


class Talk(NamedTuple):
    """A question, its answer, and the answer to `NEXT` after that."""

    question: str
    seed: int
    answer: str
    next: str

    def ask(self, content: str, **more: Any) -> dict[str, Any]:
        said = [{"role": "user", "content": content}]
        return RESPONSES.ask(said, **{"model": "m", "seed": self.seed, **more})


class Known(NamedTuple):
    """What is right: texts by prompt and seed; talks."""

    texts: dict[tuple[str, int], str]
    talks: list[Talk]


def known(model: Path) -> Known:
    """Find out by single runs: a session's, and those of a server that has nothing else to do."""
    prompts = ("import ", "The :mod:`json` module ", ".. function:: ")
    with Model(model) as opened:
        texts = {
            (prompt, seed): Session(opened).generate(prompt, seed=seed, **WRITE)
            for prompt in prompts
            for seed in range(4)
        }
    talks = []
    with serve({"m": model}, cache_bytes=0) as client:
        for question in ("What does json do?", "What is os.getcwd?"):
            for seed in range(3):
                talk = Talk(question, seed, "", "")
                answer = RESPONSES.text(post(client, RESPONSES.path, **talk.ask(question)))
                said = [("user", question), ("assistant", answer), ("user", NEXT)]
                whole = [{"role": role, "content": content} for role, content in said]
                ask = {**talk.ask(NEXT), "input": whole}
                after = RESPONSES.text(post(client, RESPONSES.path, **ask))
                talks.append(Talk(question, seed, answer, after))
    return Known(texts, talks)


class Client:
    """One that behaves: it asks for texts, and may let the server keep responses and states.

    Args:
        known: what is right.
        name: what its chances follow.
        keeps: whether it lets the server keep anything.
        counts: of what was done.
    """

    def __init__(self, known: Known, name: str, *, keeps: bool, counts: Counter[str]):
        self._known = known
        self._chance = random.Random(name)
        self._keeps = keeps
        self._counts = counts
        self._responses: dict[str, tuple[dict[str, Any], Talk]] = {}
        self._states: dict[str, tuple[dict[str, Any], Talk]] = {}
        self._deleted: set[str] = set()
        # What nobody has answered: a state may be kept, others may be deleted.
        self._keeping = False
        self._deleting: set[str] = set()

    async def step(self, http: httpx.AsyncClient) -> None:
        """Do something.

        Raises:
            Wrong: it had the wrong effect.
            httpx.HTTPError: it had none.
        """
        kinds = [self._write] * 4
        if self._keeps:
            kinds += [self._respond, self._save, self._go_on, self._go_on, self._delete]
        await self._chance.choice(kinds)(http)

    async def check(self, http: httpx.AsyncClient) -> None:
        """Look for all that was answered to be kept, and for nothing else.

        Raises:
            Wrong: something is lost, or there again.
            httpx.HTTPError: there was no answer.
        """
        for name, (response, _) in self._responses.items():
            found = await http.get(f"{RESPONSES.path}/{name}")
            if found.status_code != 200 or found.json() != response:
                raise Wrong(f"{name}: expected {response}, got {found.text}")
        for name in self._deleted:
            if (found := await http.get(f"{RESPONSES.path}/{name}")).status_code != 404:
                raise Wrong(f"{name}: expected none any more, got {found.text}")
        answer = await http.get(STATES, params={"limit": 1000})
        listed = {each["id"]: each for each in answer.raise_for_status().json()["data"]}
        for name, (state, _) in self._states.items():
            if listed.get(name) != state:
                raise Wrong(f"{name}: expected {state}, got {listed.get(name)}")
        more = listed.keys() - self._states.keys()
        if len(more - self._deleting) > self._keeping:
            raise Wrong(f"states: expected {self._states.keys()}, got {more} too")
        for name in more:
            (await http.delete(f"{STATES}/{name}")).raise_for_status()
        self._keeping = False
        self._deleting.clear()
        for kept, where in ((self._responses, "previous_response_id"), (self._states, "state")):
            for name, (_, talk) in kept.items():
                await self._next(http, talk, {where: name})

    async def _write(self, http: httpx.AsyncClient) -> None:
        """Ask for a text."""
        prompt, seed = self._chance.choice(sorted(self._known.texts))
        expected, text, whole = self._known.texts[prompt, seed], "", False
        ask = {"prompt": prompt, "seed": seed, **WRITE}
        try:
            if self._chance.random() < 0.5:
                async for data in _events(http, COMPLETIONS.path, ask):
                    text += data["choices"][0]["text"]
            else:
                answer = await http.post(COMPLETIONS.path, json=ask)
                text = COMPLETIONS.text(answer.raise_for_status().json())
            whole = True
        finally:  # also where it was cut
            if text != (expected if whole else expected[: len(text)]):
                raise Wrong(f"{prompt!r}, {seed}: expected {expected!r}, got {text!r}")
        self._counts["texts"] += 1

    async def _respond(self, http: httpx.AsyncClient) -> None:
        """Ask for an answer that is kept."""
        if len(self._responses) >= MOST_KEPT:
            return
        talk = self._chance.choice(self._known.talks)
        response: dict[str, Any] = {}
        if self._chance.random() < 0.5:
            async for data in _events(http, RESPONSES.path, talk.ask(talk.question)):
                response = data.get("response", {})  # the last event has it
        else:
            answer = await http.post(RESPONSES.path, json=talk.ask(talk.question))
            response = answer.raise_for_status().json()
        if (text := RESPONSES.text(response)) != talk.answer:
            raise Wrong(f"{talk}: got {text!r}")
        self._responses[response["id"]] = (response, talk)
        self._counts["responses"] += 1

    async def _save(self, http: httpx.AsyncClient) -> None:
        """Keep what a response ended in."""
        if not self._responses or len(self._states) >= MOST_KEPT:
            return
        name = self._chance.choice(sorted(self._responses))
        self._keeping = True
        answer = await http.post(STATES, json={"response_id": name})
        state = answer.raise_for_status().json()
        self._keeping = False
        self._states[state["id"]] = (state, self._responses[name][1])
        self._counts["states"] += 1

    async def _go_on(self, http: httpx.AsyncClient) -> None:
        """Go on from a response or a state."""
        kept, where = self._chance.choice(
            [(self._responses, "previous_response_id"), (self._states, "state")]
        )
        if kept:
            name = self._chance.choice(sorted(kept))
            await self._next(http, kept[name][1], {where: name})

    async def _delete(self, http: httpx.AsyncClient) -> None:
        """Delete a response or a state."""
        kept, path = self._chance.choice(
            [(self._responses, RESPONSES.path), (self._states, STATES)]
        )
        if not kept:
            return
        name = self._chance.choice(sorted(kept))
        del kept[name]
        self._deleting.add(name)
        (await http.delete(f"{path}/{name}")).raise_for_status()
        if (found := await http.get(f"{path}/{name}")).status_code != 404:
            raise Wrong(f"{name}: expected none any more, got {found.text}")
        self._deleting.remove(name)
        if path == RESPONSES.path:  # states are listed
            self._deleted.add(name)
        self._counts["deleted"] += 1

    async def _next(self, http: httpx.AsyncClient, talk: Talk, begin: dict[str, str]) -> None:
        answer = await http.post(RESPONSES.path, json=talk.ask(NEXT, store=False, **begin))
        response = answer.raise_for_status().json()
        if (text := RESPONSES.text(response)) != talk.next:
            raise Wrong(f"{talk}, {begin}: got {text!r}")
        self._counts["texts"] += 1


async def _events(
    http: httpx.AsyncClient, path: str, ask: dict[str, Any]
) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream; one that ends too early is a failed transport."""
    async with http.stream("POST", path, json={**ask, "stream": True}) as answer:
        answer.raise_for_status()
        data: dict[str, Any] = {}
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                return
            if line.startswith("data: "):
                data = json.loads(line[6:])
                yield data
        if data.get("type") not in ("response.completed", "response.incomplete"):
            raise httpx.RemoteProtocolError("expected the last event, got an end")
