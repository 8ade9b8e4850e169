"""Arms with settings of their own, and rounds: what they change, and what they must not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dexpie_ros.config import ConfigError, from_dict, read_yaml, to_dict
from dexpie_ros.critic import label as labelling
from dexpie_ros.critic import settings as critics
from dexpie_ros.critic.returns import monte_carlo, stream
from dexpie_ros.evaluation.experiments.folder import claim, differing
from dexpie_ros.evaluation.experiments.jobs import (
    LABELS,
    PREPARE,
    Job,
    _after,
    _Queue,
    all_jobs,
)
from dexpie_ros.evaluation.experiments.methods import (
    actor_config,
    check_arms,
    critic_config,
    label_config,
)
from dexpie_ros.evaluation.experiments.settings import (
    ARMS,
    DEPLOYMENTS,
    DEVELOPMENT,
    EVALUATIONS,
    ROUND_STRIDE,
    SEED_STRIDE,
    TASKS,
    Arm,
    ExperimentConfig,
    Unit,
    evaluation_of,
    laboratory,
    ladder,
    longest_steps,
    staged_against_standard,
)
from dexpie_ros.training.sampling import SourceWeights

ABLATIONS = {
    "dexpie_n12": {"recipe": "dexpie", "labels": "best", "label": ["advantage.window=12"]},
    "dexpie_whole": {"recipe": "dexpie", "labels": "best", "critic": ["crossfit=0"]},
    "dexpie_share": {"recipe": "dexpie", "labels": "best", "actor": ["data.human_share=0.5"]},
}


def test_the_defaults_are_what_they_were() -> None:
    unit = Unit("A", "retry", "main", 3)
    assert unit.folder == "A-retry/main/seed-003" and unit.round == 1
    config = ladder()
    assert config.rounds == 1 and config.arms == {}
    assert config.arms_of(unit) == tuple(ARMS)
    assert [a.tag for a in ARMS.values()] == [a.labels for a in ARMS.values()]
    assert [a.critic_name for a in ARMS.values()] == [a.labels for a in ARMS.values()]
    longest = longest_steps(config, unit)
    expected = dataclasses.replace(critics.best(longest), seed=3)
    assert critic_config(config, unit, "dexpie") == expected
    assert label_config(config, "dexpie_paper") == labelling.paper()
    actor = actor_config(config, unit, "recap")
    assert (actor.recipe, actor.loop.iterations, actor.loop.seed) == ("recap", 12000, 3)
    assert actor.policy.inference.beta == 1.0 and actor.data.human_share == 1.0
    assert actor_config(config, unit, "recap_paper").policy.inference.beta == 1.5


def test_every_arm_draws_corrections_as_often_but_those_that_say_otherwise() -> None:
    """DexHiL has half of the loss for them already, the paper's arms draw all windows equally."""
    unit = Unit("A", "retry", "main", 0)
    weights = {arm: actor_config(ladder(), unit, arm).data.weights for arm in ARMS}
    equal = {"dexhil", "recap_paper", "dexpie_paper"}
    assert {arm for arm, w in weights.items() if w.intervention == 1.0} == equal
    assert {arm for arm, w in weights.items() if w.intervention == 5.0} == {*ARMS} - equal


def test_the_papers_arms_learn_from_failures_too() -> None:
    unit = Unit("A", "retry", "main", 0)
    actors = {arm: actor_config(ladder(), unit, arm).data.weights for arm in ARMS}
    critics_ = {arm: critic_config(ladder(), unit, arm).returns for arm in ARMS if ARMS[arm].labels}
    paper = {"recap_paper", "dexpie_paper"}
    assert {arm for arm, w in actors.items() if w == SourceWeights()} == paper
    assert {arm for arm, w in actors.items() if w.failure == 0.0} == {*ARMS} - paper
    assert {arm for arm, r in critics_.items() if r.failures == "learn"} == paper


@pytest.mark.parametrize("recipe", ["dexpie", "recap"])
def test_earlier_arms_differ_in_what_they_say_and_in_nothing_else(recipe: str) -> None:
    file = Path(__file__).parents[1] / "config" / "earlier_arms.yaml"
    config, unit = (
        from_dict(ExperimentConfig, read_yaml(file), str(file)),
        Unit("A", "retry", "main", 0),
    )
    arms = (recipe, f"{recipe}_guided", f"{recipe}_failures")
    plain, guided, other = (actor_config(config, unit, arm) for arm in arms)
    asked = dataclasses.replace(plain.policy.inference, beta=1.5)
    policy = dataclasses.replace(plain.policy, inference=asked)
    assert guided == dataclasses.replace(plain, policy=policy)
    assert other.data.weights == SourceWeights(intervention=5.0)
    data = dataclasses.replace(other.data, weights=SourceWeights(intervention=5.0, failure=0.0))
    assert guided == dataclasses.replace(other, data=data)
    plain, other = (critic_config(config, unit, arm) for arm in (recipe, f"{recipe}_failures"))
    assert other.returns.failures == "learn"
    returns = dataclasses.replace(other.returns, failures="leave_out")
    assert plain == dataclasses.replace(other, returns=returns)
    assert len({label_config(config, arm) for arm in arms}) == 1
    assert critic_config(config, unit, f"{recipe}_guided") == plain


@pytest.mark.parametrize("key", TASKS)
@pytest.mark.parametrize("arm", ["dexpie", "dexpie_paper"])
def test_no_return_of_any_task_is_cut_off(key: tuple[str, str], arm: str) -> None:
    """The longest episode: nearly the horizon alone, then all the operator's time, then the key."""
    unit, setup = Unit(*key, "main", 0), TASKS[key]
    returns = critic_config(ladder(), unit, arm).returns
    assert returns.max_steps >= (setup.horizon_s + setup.operator_limit_s) / 0.04
    steps = returns.max_steps + 1
    for success in (True, False):
        values = monte_carlo(stream(steps, success, np.zeros(steps), returns), returns)
        if arm == "dexpie" or success:
            assert values[0] == pytest.approx(-0.5 if arm == "dexpie" and success else -1.0)


def test_an_arms_overrides_reach_its_own_settings_only() -> None:
    config = ladder(arms=ABLATIONS)
    check_arms(config)
    unit = config.units()[0]
    assert config.arms_of(unit) == (*ARMS, *ABLATIONS)
    assert label_config(config, "dexpie_n12").advantage.window == 12
    assert label_config(config, "dexpie") == label_config(config, "dexpie_whole")
    assert critic_config(config, unit, "dexpie_whole").crossfit == 0
    assert critic_config(config, unit, "dexpie_n12") == critic_config(config, unit, "dexpie")
    assert actor_config(config, unit, "dexpie_share").data.human_share == 0.5
    # a critic of its own for other critics, labels of its own for other labels
    plain, n12, whole, share = (config.method(a) for a in ("dexpie", *ABLATIONS))
    assert n12.critic_name == "best" and n12.tag != "best"
    assert whole.critic_name != "best" and whole.tag == whole.critic_name
    assert (share.critic_name, share.tag) == (plain.critic_name, plain.tag)
    assert Arm("recap", "best", label=("advantage.window=12",)).tag == n12.tag


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"dexpie": {"recipe": "dexpie", "labels": "best"}}, "expected a new name"),
        ({"../up": {"recipe": "bc"}}, "expected a new name"),
        ({"x": {"recipe": "dexpie"}}, "need best or paper"),
        ({"x": {"recipe": "bc", "label": ["scoring.alpha=1"]}}, "change nothing"),
        ({"x": {"recipe": "sarsa"}}, "recipe"),
        ({"x": {"recipe": "bc", "warm_start": True}}, "what the others start from"),
    ],
)
def test_impossible_arms_are_refused(arms: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ladder(arms=arms)


def test_development_starts_are_none_that_count() -> None:
    assert ladder().starts == range(EVALUATIONS, EVALUATIONS + 200)
    assert ladder(first_start=DEVELOPMENT, trials=60).starts[-1] == DEVELOPMENT + 59
    with pytest.raises(ConfigError, match="run into the starts that count"):
        ladder(first_start=EVALUATIONS - 10, trials=60)
    with pytest.raises(ConfigError, match="first_start"):
        ladder(first_start=DEPLOYMENTS)
    counted, other = to_dict(ladder()), to_dict(ladder(first_start=DEVELOPMENT))
    assert differing(counted, other) == ["first_start"], "they share no folder"


def test_arms_may_go_on_from_bc_and_plan_more_often() -> None:
    arms = {"x": {"recipe": "hg_dagger", "warm_start": True, "execution_horizon": 10}}
    config = ladder(arms=arms)
    unit = config.units()[0]
    assert actor_config(config, unit, "x", "there/policy").init_from == "there/policy"
    assert actor_config(config, unit, "hg_dagger", "there/policy").init_from == ""
    plain = evaluation_of(config, unit, "hg_dagger")
    assert plain == laboratory(config, unit, "evaluation")
    assert plain.inference.execution_horizon == 20
    assert evaluation_of(config, unit, "x").inference.execution_horizon == 10
    check_arms(config)
    with pytest.raises(ConfigError, match=r"arms\.x\.execution_horizon = 21: at most 20"):
        check_arms(ladder(arms={"x": {**arms["x"], "execution_horizon": 21}}))
    before = to_dict(config)
    del before["arms"]["x"]["warm_start"], before["arms"]["x"]["execution_horizon"]
    plain = {"x": {"recipe": "hg_dagger"}}
    assert differing(before, to_dict(ladder(arms=plain))) == [], "settings of newer versions"
    assert differing(to_dict(config), to_dict(ladder(arms=plain))) == ["arms"]


def test_a_mistyped_override_is_found_before_the_work() -> None:
    arm = {"recipe": "dexpie", "labels": "best", "label": ["advantage.widow=12"]}
    with pytest.raises(ConfigError, match=r"arms\.typo\.label.*window"):
        check_arms(ladder(arms={"typo": arm}))


def test_arms_and_rounds_may_be_added_to_a_folder(tmp_path: Path) -> None:
    claim(ladder(), tmp_path)
    claim(ladder(arms=ABLATIONS, rounds=2), tmp_path)
    with pytest.raises(ConfigError, match="differs in arms"):
        claim(ladder(), tmp_path)
    changed = {**ABLATIONS, "dexpie_n12": {"recipe": "recap", "labels": "best"}}
    with pytest.raises(ConfigError, match="differs in arms"):
        claim(ladder(arms=changed), tmp_path)


def test_rounds_have_seeds_of_their_own_and_wait_for_the_improved_policy() -> None:
    most = ExperimentConfig(rounds=20)
    last = DEPLOYMENTS + (most.rounds - 1) * ROUND_STRIDE + 1000 * SEED_STRIDE
    assert last < EVALUATIONS and 1000 * SEED_STRIDE < ROUND_STRIDE
    with pytest.raises(ConfigError, match="later ones deploy the policy of arm dexpie"):
        ladder(rounds=2, variants=[{"arms": ["bc", "recap"]}])
    variants = [{"arms": ["bc", "dexpie"]}]
    config = ladder(tasks=["B"], regimes=["retry"], seeds=1, rounds=2, variants=variants)
    one, two = config.units()
    jobs = all_jobs(config)
    assert [j.name for j in jobs] == [
        "B-retry/main/seed-000 prepare",
        "B-retry/main/seed-000 labels best",
        "B-retry/main/seed-000 bc",
        "B-retry/main/seed-000 dexpie",
        "B-retry/main/seed-000/round-2 prepare",
        "B-retry/main/seed-000/round-2 labels best",
        "B-retry/main/seed-000/round-2 dexpie",
    ]
    best = Job(one, LABELS + "best")
    queue = _Queue(list(jobs), after=_after(config))
    assert queue.take() == Job(one, PREPARE) and queue.take() is None
    queue.done.add(Job(one, PREPARE))
    assert [queue.take(), queue.take(), queue.take()] == [best, Job(one, "bc"), None]
    queue.done.add(best)
    assert [queue.take(), queue.take()] == [Job(one, "dexpie"), None]
    queue.done.add(Job(one, "dexpie"))
    assert queue.take() == Job(two, PREPARE)
    # without the policy there is no second round, without the other arm there is
    queue = _Queue(list(jobs), after=_after(config))
    queue.drop(Job(one, "bc"))
    assert queue.waiting == jobs
    queue.drop(Job(one, "dexpie"))
    assert queue.waiting == jobs[:4]
    queue.drop(best)
    assert queue.waiting == jobs[:3]


def test_labels_of_one_critic_wait_for_it_and_each_other_critic_is_a_job_of_its_own() -> None:
    config = ladder(tasks=["A"], regimes=["retry"], seeds=1, arms=ABLATIONS)
    (unit,) = config.units()
    jobs = [job for job in all_jobs(config) if job.arm.startswith(LABELS)]
    tags = config.tags_of(unit)
    n12, whole = config.method("dexpie_n12").tag, config.method("dexpie_whole").tag
    assert list(tags) == ["best", "paper", n12, whole] and n12 != whole
    assert [tags[t] for t in tags] == ["best", "paper", "best", whole]
    needs = _Queue(jobs, after=_after(config)).needs
    assert [needs(job).arm for job in jobs] == [PREPARE, PREPARE, LABELS + "best", PREPARE]
    assert needs(Job(unit, "dexpie_n12")).arm == LABELS + n12
    assert needs(Job(unit, "dexhil")).arm == PREPARE


def test_what_is_collected_like_another_waits_for_it() -> None:
    config = staged_against_standard(seeds=1)
    staged, standard, driven = config.units()
    needs = _Queue(all_jobs(config), after=_after(config)).needs
    assert needs(Job(driven, PREPARE)) == Job(staged, PREPARE)
    assert needs(Job(standard, PREPARE)) == Job(staged, PREPARE), "whose BC it deploys"
    assert needs(Job(staged, PREPARE)) is None
    assert needs(Job(driven, "bc")) == Job(driven, PREPARE)
    with pytest.raises(ConfigError, match=r"variants.one.driven_like: 'two'; expected"):
        ladder(variants=[{"name": "one", "driven_like": "two"}, {"name": "two"}])
    with pytest.raises(ConfigError, match="and one round"):
        ladder(variants=[{"name": "one"}, {"name": "two", "driven_like": "one"}], rounds=2)


def test_a_config_survives_the_disk() -> None:
    config = ladder(arms=ABLATIONS, rounds=3)
    assert to_dict(ladder(**to_dict(config))) == to_dict(config)
