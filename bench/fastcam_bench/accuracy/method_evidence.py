"""What the package does not say of its methods and modes: which tests prove each, and which peers have it too.

:mod:`fastcam_bench.report.methods_table` writes it down. A test holds that everything has a row and that the tests
exist.
"""

from __future__ import annotations

from dataclasses import dataclass

PGC, TORCH_CAM, CAPTUM = "pytorch-grad-cam", "torch-cam", "captum"
ONE = "1"
TO_THE_IMAGE = "1, and a backward pass to the image"
TO_THE_LAYER = "1, and a backward pass to the layer"
RUNS = "1 per"


@dataclass(frozen=True)
class Row:
    """What the package does not say itself.

    Attributes:
        tests: what proves it, ``file::function``, against an oracle that is not ours.
        peers: the tools that have it.
        cost: forward passes for one picture and any number of targets, where the method does not say so itself.
        source: where it is from, likewise.
        function: in ``fastcam.perturbation``, of methods that are no name of METHODS.
    """

    tests: tuple[str, ...]
    peers: tuple[str, ...] = ()
    cost: str = ONE
    source: str = ""
    function: str = ""


_FORMULA = "methods/test_methods.py::test_formula"
_MODE = ("autodiff/test_modes.py::test_at_the_image", "autodiff/test_modes.py::test_captum")
_RELEVANCE = "autodiff/test_modes.py::test_relevance_at_the_image"
_LRP = (
    _RELEVANCE,
    "autodiff/test_modes.py::test_relevance_is_conserved",
    "autodiff/test_modes.py::test_captum_relevance",
)
_WINNING = "autodiff/test_modes.py::test_winning_probabilities_sum_to_one"

ROWS: dict[str, Row] = {
    "gradcam": Row(
        (_FORMULA, "autodiff/test_torchvision.py::test_default_layer_equals_autograd"), (PGC, TORCH_CAM, CAPTUM)
    ),
    "gradcam++": Row(
        ("methods/test_methods.py::test_gradcam_pp_is_the_papers_quotient_of_derivatives_of_the_exponential_score",),
        (PGC, TORCH_CAM),
    ),
    "xgradcam": Row((_FORMULA,), (PGC, TORCH_CAM)),
    "hirescam": Row((_FORMULA,), (PGC, CAPTUM)),
    "elementwise": Row((_FORMULA,), (PGC,)),
    "layercam": Row((_FORMULA,), (PGC, TORCH_CAM)),
    "eigencam": Row(("methods/test_methods.py::test_eigencam_is_the_first_principal_component",), (PGC,)),
    "eigengradcam": Row(("methods/test_methods.py::test_eigencam_is_the_first_principal_component",), (PGC,)),
    "kpcacam": Row(("methods/test_methods.py::test_kpcacam_is_the_first_component_of_the_centred_kernel",), (PGC,)),
    "fem": Row((_FORMULA,), (PGC,)),
    # backward modes
    "gradient": Row(
        (*_MODE, "autodiff/test_modes.py::test_the_check_covers_the_gradient_at_the_image"),
        (CAPTUM,),
        TO_THE_IMAGE,
        source="Simonyan et al. 2014, 1312.6034",
    ),
    "guided": Row(
        (*_MODE, "autodiff/test_torchvision.py::test_guided_backpropagation_equals_changed_relus"),
        (PGC, CAPTUM),
        TO_THE_IMAGE,
        source="Springenberg et al. 2015, 1412.6806",
    ),
    "deconvolution": Row(_MODE, (CAPTUM,), TO_THE_IMAGE, source="Zeiler and Fergus 2014, 1311.2901"),
    "excitation": Row(
        (_RELEVANCE, _WINNING, "autodiff/test_modes.py::test_relevance_at_a_layer_is_summed_over_channels"),
        cost=TO_THE_LAYER,
        source="Zhang et al. 2016, 1608.00507",
    ),
    "contrastive-excitation": Row(
        (_RELEVANCE, "autodiff/test_modes.py::test_relevance_at_a_layer_is_summed_over_channels"),
        cost=TO_THE_LAYER,
        source="Zhang et al. 2016, 1608.00507",
    ),
    "lrp-epsilon": Row(
        (*_LRP, "autodiff/test_modes.py::test_relevance_passes_a_gate"),
        (CAPTUM,),
        TO_THE_IMAGE,
        source="Bach et al. 2015, PLoS ONE 10",
    ),
    "lrp-composite": Row(_LRP, (CAPTUM,), TO_THE_IMAGE, source="Kohlbrenner et al. 2020, 1910.09840"),
    "lrp-gamma": Row(_LRP, (CAPTUM,), TO_THE_IMAGE, source="Montavon et al. 2019, LNCS 11700"),
    "input-x-gradient": Row(
        (
            "methods/test_modes_as_methods.py::test_modes_of_the_image_as_methods",
            "methods/test_graph_modes.py::test_arrays_are_what_the_file_gives",
        ),
        (CAPTUM,),
        TO_THE_IMAGE,
    ),
    "guided-gradcam": Row(
        (
            "methods/test_modes_as_methods.py::test_modes_of_the_image_as_methods",
            "methods/test_graph_modes.py::test_arrays_are_what_the_file_gives",
        ),
        (CAPTUM,),
        TO_THE_IMAGE,
    ),
    "rollout": Row(("autodiff/test_attention_maps.py::test_rollout",), (), source="Abnar and Zuidema 2020, 2005.00928"),
    "rollout-max": Row(
        ("autodiff/test_attention_maps.py::test_other_fusions_of_heads",), (), source="Abnar and Zuidema 2020"
    ),
    "rollout-min": Row(
        ("autodiff/test_attention_maps.py::test_other_fusions_of_heads",), (), source="Abnar and Zuidema 2020"
    ),
    "legrad": Row(
        ("autodiff/test_attention_maps.py::test_legrad",),
        (TORCH_CAM,),
        TO_THE_LAYER,
        source="Bousselham et al. 2024, 2404.03214",
    ),
    "fullgrad": Row(
        (
            "autodiff/test_fullgrad.py::test_equal_to_autograd",
            "autodiff/test_fullgrad.py::test_the_terms_add_up_to_the_score",
        ),
        (PGC,),
        TO_THE_IMAGE,
        source="Srinivas and Fleuret 2019, 1905.00780",
    ),
    "shapleycam": Row(
        (
            "autodiff/test_shapleycam.py::test_equal_to_double_backward",
            "autodiff/test_shapleycam.py::test_a_linear_head_gives_gradcam",
        ),
        (PGC,),
        "1, and two backward passes to the layer",
        source="Cai 2025, 2501.06261",
    ),
    "cam": Row(
        (
            "export/test_cam.py::test_cam_is_the_sum_of_the_maps_by_the_classs_row",
            "export/test_cam.py::test_gradcam_at_the_last_map_is_cam_up_to_a_positive_factor",
        ),
        (TORCH_CAM,),
    ),
    # averages
    "smoothgrad": Row(("methods/test_gradient_averaging.py::test_smoothgrad_and_vargrad",), (CAPTUM,)),
    "vargrad": Row(("methods/test_gradient_averaging.py::test_smoothgrad_and_vargrad",), (CAPTUM,)),
    "integrated-gradients": Row(
        (
            "methods/test_gradient_averaging.py::test_integrated_gradients_sum_to_the_scores_difference",
            "methods/test_gradient_averaging.py::test_integrated_gradients_follow_the_straight_path",
        ),
        (CAPTUM,),
    ),
    "smoothgradcam++": Row(("methods/test_gradient_averaging.py::test_smoothgradcam_pp",), (TORCH_CAM,)),
    "augsmooth": Row(
        ("methods/test_gradient_averaging.py::test_augsmooth_averages_heatmaps_of_changed_images",), (PGC,)
    ),
    "vit-reciprocam": Row(("export/test_classifier_head.py::test_vit_reciprocam_keeps_class_token_and_residual",)),
    # functions of any score, and methods of the same name
    "scorecam": Row(
        (
            "methods/test_perturbation.py::test_scorecam",
            "methods/test_perturbation.py::test_a_flat_map_masks_everything",
        ),
        (PGC, TORCH_CAM),
        f"{RUNS} channel of the layer",
        "Wang et al. 2020, 1910.01279",
        "scorecam_weights",
    ),
    "sscam": Row(
        ("methods/test_perturbation.py::test_sscam_averages_over_noise",),
        (TORCH_CAM,),
        f"{RUNS} channel and sample",
        "Wang et al. 2020, 2006.14255",
        "scorecam_weights",
    ),
    "iscam": Row(
        ("methods/test_perturbation.py::test_iscam_integrates_the_mask",),
        (TORCH_CAM,),
        f"{RUNS} channel and sample",
        "Naidu et al. 2020, 2010.03023",
        "scorecam_weights",
    ),
    "ablationcam": Row(
        ("methods/test_perturbation.py::test_ablationcam",),
        (PGC,),
        f"{RUNS} channel, of the head alone",
        "Desai and Ramaswamy 2020, WACV",
        "ablationcam_weights",
    ),
    "reciprocam": Row(
        ("methods/test_perturbation.py::test_reciprocam",),
        (),
        f"{RUNS} position, of the head alone",
        "Byun and Lee 2022, 2209.14074",
        "reciprocam",
    ),
    "occlusion": Row(
        ("methods/test_perturbation.py::test_occlusion",),
        (CAPTUM,),
        f"{RUNS} window",
        "Zeiler and Fergus 2014, 1311.2901",
        "occlusion",
    ),
    "rise": Row(
        ("methods/test_perturbation.py::test_rise_finds_the_patch_that_matters",),
        (),
        f"{RUNS} mask",
        "Petsiuk et al. 2018, 1806.07421",
        "rise",
    ),
}
"""By the names of ``fastcam methods`` and of ``--input-gradient``; only what this package has is listed."""
