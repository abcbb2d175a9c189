"""Options of protocols: from the command line's text, of the kind of their defaults, in range, or one line."""

from __future__ import annotations

import pytest

from fastcam import FastcamError
from fastcam.evaluation.protocols import PROTOCOLS
from fastcam.evaluation.protocols.faithfulness import FAITHFULNESS
from fastcam.evaluation.protocols.options import chosen, described, options


def test_values_have_the_kind_of_the_default():
    texts = ["insertion.baseline=black", "road.percentages=10, 50", "road.noise=0", "road.curve=true"]
    texts += ["insertion.step=448", "randomisation.order=independent"]
    insertion, road, randomisation, localization = chosen(
        PROTOCOLS, ["insertion", "road", "randomisation", "localization", "insertion"], texts
    )
    assert (insertion.baseline, insertion.step) == ("black", 448)
    assert (road.percentages, road.noise, road.curve) == ((10.0, 50.0), 0.0, True)
    assert randomisation.order == "independent" and localization.name == "localization"
    assert "PixelFlipping(of='predicted', region=9" in repr(PROTOCOLS["pixel-flipping"]())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("insertion", "give PROTOCOL.OPTION=VALUE"),
        ("insertion.step=", "give PROTOCOL.OPTION=VALUE"),
        ("deletion.step=3", "deletion is not measured; measured are insertion, road, energy, pixel-flipping"),
        ("insertion.size=3", "insertion has no option 'size'; it has of, at, baseline, step"),
        ("energy.size=3", "energy has no option 'size'; it has none"),
        ("insertion.step=many", "insertion.step is 'many'; the default is 0"),
        ("insertion.step=-1", "insertion.step is -1; give 0 or more"),
        ("insertion.of=all", "insertion.of is 'all'; give predicted or marked"),
        ("insertion.baseline=white", "give one of: black, grey, zero, mean, blur"),
        ("pixel-flipping.step=0", "pixel-flipping.step is 0; give 1 or more"),
        ("road.percentages=10,,20", "the default is 10,20,30,40,50,60,70,80,90"),
        ("road.percentages=0,50", "give numbers above 0, up to 100"),
        ("road.noise=nan", "road.noise is 'nan'"),
        ("road.noise=-1", "road.noise is -1.0; give 0 or more"),
        ("road.curve=maybe", "the default is False"),
    ],
)
def test_what_does_not_fit_is_one_line(text, words):
    with pytest.raises(FastcamError, match=words.replace("(", r"\(")):
        chosen(PROTOCOLS, ["insertion", "road", "energy", "pixel-flipping"], [text])


def test_unknown_protocols_are_named_with_those_that_there_are():
    with pytest.raises(FastcamError, match="no protocol 'insert'; there are localization"):
        chosen(PROTOCOLS, ["insert"])


@pytest.mark.parametrize("protocol", FAITHFULNESS)
def test_every_default_is_an_option_that_can_be_set_as_text(protocol):
    texts = [f"{protocol.name}.{each}" for each in described(protocol).split(" ")]
    assert len(texts) == len(options(protocol)) > 0
    assert chosen(PROTOCOLS, [protocol.name], texts) == [protocol()]
