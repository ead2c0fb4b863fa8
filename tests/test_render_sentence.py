"""The sentence says what the heat, the prediction and the receipt say, and nothing more."""

import numpy as np
import pytest

from pellucid.core.receipt import Check, Receipt
from pellucid.render.explanation import Prediction
from pellucid.render.sentence import alt_text, densest_part, map_sentence, sentence, share_text, trust_sentence
from render_examples import bump, explanation, signed_explanation


def test_the_whole_sentence():
    heat = np.zeros((12, 12))
    heat[0, 0], heat[11, 11] = 3, 1
    one = explanation(heat)
    assert sentence(one) == (
        "The network says tabby cat (83 %). Grad-CAM marks the upper left ninth of the picture as what speaks most for "
        "it (75 % of the heat). This map is coarse: 12×12 cells. It passed its own check (completeness). "
        "It can mislead when two objects of one class are in the picture, it often marks only one."
    )


@pytest.mark.parametrize(
    ("rows", "columns", "part"),
    [
        (slice(0, 3), slice(0, 3), "the upper left ninth"),
        (slice(6, 9), slice(3, 6), "the lower middle ninth"),
        (slice(3, 6), slice(3, 6), "the central ninth"),
        (slice(0, 4), slice(5, 9), "the upper right quarter"),
        (slice(0, 3), slice(0, 9), "the upper third"),
        (slice(3, 6), slice(0, 9), "the horizontal middle band"),
        (slice(0, 9), slice(3, 6), "the vertical middle band"),
        (slice(0, 9), slice(6, 9), "the right third"),
        (slice(5, 9), slice(0, 9), "the lower half"),
        (slice(0, 9), slice(0, 9), ""),
    ],
)
def test_the_smallest_familiar_part_is_named(rows, columns, part):
    heat = np.zeros((9, 9))
    heat[rows, columns] = 1
    assert densest_part(np.kron(heat, np.ones((4, 4))))[0] == part


def test_the_share_is_that_of_the_named_part():
    heat = np.zeros((9, 9))
    heat[0, 0], heat[8, 8] = 0.62, 0.38
    assert densest_part(heat) == ("the upper left ninth", pytest.approx(0.62))


def test_signs_are_told_apart():
    words = sentence(signed_explanation(units="logit"))
    assert "LRP marks the central ninth of the picture as what speaks most for it (" in words
    assert "of the positive heat)" in words
    assert "% of all heat counts the other way, mostly in the lower left" in words
    assert "did not see the hatched margin (33 % of the picture)" in words


def test_negative_heat_only():
    words = map_sentence(explanation(-bump(8, 0.2, 0.2), signed=True))
    assert "as what speaks against it (" in words
    assert "marks nothing as speaking for it" in words


def test_nothing_and_no_numbers():
    assert "zero everywhere" in map_sentence(explanation(np.zeros((8, 8))))
    assert "gave no number anywhere" in map_sentence(explanation(np.full((8, 8), np.nan)))
    one = bump(8, 0.2, 0.2)
    one[7] = np.nan
    assert "12 % of its cells have no number" in map_sentence(explanation(one))


def test_even_heat_marks_no_part():
    assert "marks no single part" in map_sentence(explanation(np.ones((8, 8))))


def test_without_predictions_the_target_is_quoted():
    words = sentence(explanation(predictions=(), target="unit 7 of layer4"))
    assert words.startswith("Grad-CAM marks")
    assert "for “unit 7 of layer4”" in words


def test_another_class_is_named_and_a_contrast_quoted():
    assert "most for lynx (under 1 %)" in sentence(explanation(target="logit of 287 lynx"))
    assert "“281 tabby cat minus 287 lynx”" in sentence(explanation(target="281 tabby cat minus 287 lynx"))


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"reduce": "max_abs", "heat": bump(8, 0.2, 0.2)[None]}, "as what matters most to it, whether for or against"),
        ({"units": "logit per unit of input"}, "as where its score reacts most to small changes"),
    ],
)
def test_the_kind_of_heat_decides_what_it_means(facts, words):
    assert words in sentence(explanation(**facts))


def check(verdict, name="completeness"):
    return Check(name, 0.3, 0.05, verdict, "…")


@pytest.mark.parametrize(
    ("receipt", "words"),
    [
        (
            Receipt((check("fail"), check("pass", "b"))),
            "Do not rely on this map: it failed its own check (completeness).",
        ),
        (Receipt((check("warn"),), ("a", "b")), "a warning from its own check (completeness) and 2 steps of it were"),
        (Receipt((check("pass"),), ("a",)), "Read it with care: one step of it was approximate."),
        (Receipt((check("pass"), check("pass", "stability"))), "It passed its own checks (completeness, stability)."),
        (Receipt((check("told"),)), "This method has no numerical check of its own."),
        (Receipt(), "This method has no numerical check of its own."),
    ],
)
def test_reliability_is_that_of_the_receipt(receipt, words):
    assert words in trust_sentence(explanation(receipt=receipt))


def test_fine_maps_are_not_called_coarse():
    assert "coarse" not in sentence(explanation(bump(64, 0.2, 0.2)))


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "0 %"), (0.004, "under 1 %"), (0.62, "62 %"), (0.9999, "over 99 %"), (1.0, "100 %"), (np.nan, "no number")],
)
def test_shares_never_claim_all_or_nothing_falsely(share, words):
    assert share_text(share) == words


def test_a_saturated_softmax_is_not_called_certain():
    assert "tabby cat (over 99 %)" in sentence(explanation(predictions=(Prediction("tabby cat", 281, 1.0),)))


def test_alt_text_names_method_picture_and_place():
    words = alt_text(explanation())
    assert words.startswith("Grad-CAM heat map over cat.png.")
    assert "upper left ninth" in words
