"""T1: a privileged person who runs what somebody else registered is told so, and policy can refuse it."""

from __future__ import annotations

from flyteidl2.workflow import run_service_pb2 as runs
from tests.threats.conftest import DOMAIN, PROJECT, Lab

WARNING = "Somebody else registered this code"
OWN_CODE = (
    'forbid (principal, action == Action::"task:run", resource) '
    "when { context.privileged && context.foreign_code };"
)


def page(lab: Lab, who: str, run: str) -> str:
    """The page of a run, for somebody who signs in with a link."""
    link = lab.tower.tower("users", "link", who).out.strip()
    with lab.tower.http() as browser:
        assert browser.get(link, follow_redirects=True).status_code == 200
        found = browser.get(f"/v2/domain/{DOMAIN}/project/{PROJECT}/runs/{run}")
        assert found.status_code == 200, found.text
        return found.text


def start(lab: Lab, who: str) -> str:
    answer = lab.start(who, "def main(): return 1")
    assert answer.status_code == 200, answer.text
    name: str = runs.CreateRunResponse.FromString(answer.content).run.action.id.run.name
    lab.wait(who, name)
    return name


def test_t01_the_page_warns_a_privileged_person_of_code_of_others(lab: Lab) -> None:
    mine, theirs, hers = start(lab, "admin"), start(lab, "alice"), start(lab, "mallory")
    assert WARNING in page(lab, "admin", mine)
    assert WARNING not in page(lab, "alice", theirs)
    assert WARNING not in page(lab, "mallory", hers)
    (record,) = lab.audit(event="run.create", run=f"{PROJECT}/{DOMAIN}/{mine}")
    assert (record["detail"]["author"], record["detail"]["warning"]) == ("mallory", "foreign-code")
    (record,) = lab.audit(event="run.create", run=f"{PROJECT}/{DOMAIN}/{theirs}")
    assert record["detail"]["author"] == "mallory"
    assert "warning" not in record["detail"]


def test_t01_policy_can_keep_privileged_people_from_code_of_others(lab: Lab) -> None:
    made = lab.rest("admin", "POST", "/policies", {"name": "own-code", "text": OWN_CODE})
    assert made.status_code in {200, 201}, made.text
    try:
        assert lab.start("admin", "def main(): return 1").status_code == 403
        refused = lab.audit(event="access.refuse", subject="admin")[0]
        assert (refused["action"], refused["decision"]) == ("task:run", "policy:own-code")
        start(lab, "alice")
    finally:
        gone = lab.rest("admin", "DELETE", "/policies/own-code")
        assert gone.status_code in {200, 204}, gone.text
