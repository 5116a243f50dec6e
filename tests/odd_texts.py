"""Odd texts that tokenizing and piecing together must not change."""

from __future__ import annotations

TEXTS = [
    "Machine learning is fun.",
    "  two  spaces\n\nand\ttabs ",
    "naïve café — “quotes” and 1234567890",
    "日本語のテキスト, русский текст, العربية",
    "😀👩‍👩‍👧‍👦🇩🇪 é ✓",
    "def f(x):\n    return x ** 2  # ½",
    "� a replacement character of its own �",
    "<b>&amp;'\"",
]
ODD = ["😀", "é", "漢", "a", " ", "\n", "👩‍👩‍👧", "ü", "word ", "�", "the ", "𝔘"]
