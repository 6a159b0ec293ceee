"""Keeping the machine awake: a warning where it can't be, and never an error."""

from __future__ import annotations

import importlib.util

import pytest

from autoresearch import awake


def test_without_wakepy_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with awake.awake() as problem:
        assert "autoresearch[awake]" in problem


def test_without_a_desktop_it_warns_and_goes_on(monkeypatch):
    pytest.importorskip("wakepy")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere")
    monkeypatch.delenv("WAKEPY_FAKE_SUCCESS", raising=False)
    with awake.awake() as problem:
        assert isinstance(problem, str)
    monkeypatch.setenv("WAKEPY_FAKE_SUCCESS", "yes")  # wakepy's own way to test its users
    with awake.awake() as problem:
        assert problem == ""
