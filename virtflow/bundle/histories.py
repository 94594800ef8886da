"""The workflow's history and its children's, in Temporal's own JSON: its UI imports it, a Replayer replays it."""

from virtflow.bundle.parts import Part, Scene

__all__ = ["gather_histories"]


async def gather_histories(part: Part, scene: Scene) -> None:
    """`histories/scenario.json`, and one for each child in the order of their starts. Half a file would be none."""
    own = scene.failure.workflow_id
    waiting = [own]
    while waiting:
        workflow_id = waiting.pop(0)
        history = await scene.temporal.get_workflow_handle(workflow_id).fetch_history()
        waiting += [
            event.child_workflow_execution_started_event_attributes.workflow_execution.workflow_id
            for event in history.events
            if event.HasField("child_workflow_execution_started_event_attributes")
        ]
        name = workflow_id.removeprefix(own).strip("/").replace("/", "-") or "scenario"
        part.write(f"histories/{name}.json", "history", [history.to_json()])
