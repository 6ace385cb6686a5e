"""What users import: names that stay, whatever moves inside."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

import bayesens as be

FACES = {
    "applicability": "Applicability applicability covariate_matrix covariate_names whisker",
    "binary_scores": "brier reliability roc warning_scores",
    "correlations": "covariate_correlations inflation_factors",
    "datasets": "atlanta atlanta_grid oznet oznet_grid",
    "domain": "DomainWeights covariate_coverage domain_weights weighted_scores",
    "events": "Events area_below find_events runs",
    "importance": "drop_importance permutation_importance",
    "plots": "band_curve biases correlations coverage coverage_by_class dependence differences error_by_distance "
    "error_profile event_probability fold_distances importance intervals intervals_by_station ladder "
    "learning_curve left_out loo_differences loo_pit map map_of maps_by_time pit pixel_series power_scaled "
    "power_sensitivity prior_implied probability_map quantile_reliability reliability representativeness scores "
    "scores_by_group shapley source_biases stations tornado variability variance_parts vsup weights",
    "report": "Figure Listing Note Paragraph Report Section Table literal render with_interval write",
    "representativeness": "Components cell_means check_origins rmse_to_truth temporal_stability triple_collocation "
    "variance_components",
    "sensitivity": "clustered_weights effective_rows fewer_stations grid_table grid_words left_out_words members_left_out "
    "power_law power_scaling power_words prior_grid prior_predictive prior_table prior_words reduction_table reduction_words "
    "scaled_draws shapley usual_grid weights_table",
    "simulate": "bma hbm region",
    "spatial": "border_jumps map_table moran_moments morans_i",
    "study": "Finished begin_folder run_study",
    "thresholds": "limits_of_rows probability_below threshold_at thresholds",
    "trajectory": "Persistence persistence trajectories",
    "variogram": "grid_variogram station_variogram",
    "worlds": "WORLDS World world",
}


def test_faces_of_the_package():
    assert sorted(dir(be)) == sorted([*be.__all__, *FACES, "__version__"])


@pytest.mark.parametrize("face", FACES)
def test_names_of_a_face(face):
    module = getattr(be, face)
    assert all(hasattr(module, name) for name in FACES[face].split())
    if hasattr(module, "__all__"):
        assert sorted(module.__all__) == sorted(FACES[face].split())


@pytest.mark.parametrize("face", ["plots", "sensitivity"])
def test_no_file_of_a_face_is_called_as_one_of_its_functions(face):
    """Whoever imports such a file would put it in the function's place."""
    module = import_module(f"bayesens.{face}")
    files = {path.stem for path in Path(module.__path__[0]).glob("*.py")}
    assert not files & set(module.__all__)
    assert all(callable(getattr(module, name)) for name in module.__all__)


def test_the_manual_of_a_package_imports_nothing():
    """So that `import bayesens` and `--help` stay light; plots and sensitivity are faces, models the models."""
    root = Path(be.__file__).parent
    for path in root.rglob("__init__.py"):
        place = path.parent.relative_to(root).as_posix()
        if place in (".", "plots", "sensitivity", "models", "app/study/chapters"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), place
        assert not [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], place


def test_no_folder_has_more_than_sixteen_modules():
    root = Path(be.__file__).parent
    for folder in {path.parent for path in root.rglob("*.py")}:
        assert len([path for path in folder.glob("*.py") if path.stem != "__init__"]) <= 16, folder


def test_type_checkers_are_told_that_the_package_has_types():
    """Without the mark they take every name of the package for Any, whatever the classifiers say."""
    assert (Path(be.__file__).parent / "py.typed").is_file()
