"""What a body prints and logs is in the log of its own task run, complete and in order."""

from __future__ import annotations

import logging
import sys

from prefect import flow, get_run_logger, task

LINES = 25


@task
def speak(who):
    print(f"{who} prints")
    print(f"{who} warns", file=sys.stderr)
    logging.getLogger("science").warning("%s logs", who)
    get_run_logger().error("%s reports", who)
    print(f"{who} ends without a newline", end="")
    return who


@task
def chatter(who):
    for number in range(LINES):
        print(f"{who} line {number}")
        get_run_logger().info("%s note %s", who, number)


@task(log_prints=False)
def quiet():
    print("this is not for the log")
    get_run_logger().info("this is")


@flow
def futures_of(a_task, items):
    futures = a_task.map(items) if items else [a_task.submit()]
    for future in futures:
        future.wait()
    return [future.task_run_id for future in futures]


def test_all_kinds_of_output(burst, task_log):
    """print, stderr, logging and get_run_logger() of a body arrive with their levels, in order."""
    (task_run_id,) = burst(futures_of, speak, ["Ann"])
    spoken = [row for row in task_log(task_run_id) if row[1].startswith("Ann")]
    assert sorted(spoken) == sorted(
        [
            (logging.INFO, "Ann prints"),
            (logging.INFO, "Ann warns"),
            (logging.WARNING, "Ann logs"),
            (logging.ERROR, "Ann reports"),
            (logging.INFO, "Ann ends without a newline"),
        ]
    )
    texts = [text for _, text in spoken]
    assert texts.index("Ann prints") < texts.index("Ann logs") < texts.index("Ann reports")
    assert texts[-1] == "Ann ends without a newline"


def test_many_tasks_at_once_keep_their_lines_apart(burst, task_log):
    """Each of many tasks has all of its own lines, in order, and nobody else's."""
    names = [f"task{number}" for number in range(12)]
    for name, task_run_id in zip(names, burst(futures_of, chatter, names), strict=True):
        texts = [text for _, text in task_log(task_run_id) if text.startswith("task")]
        prints = [f"{name} line {number}" for number in range(LINES)]
        notes = [f"{name} note {number}" for number in range(LINES)]
        assert [text for text in texts if " line " in text] == prints
        assert [text for text in texts if " note " in text] == notes
        assert len(texts) == 2 * LINES
        for printed, noted in zip(prints, notes, strict=True):
            assert texts.index(printed) < texts.index(noted)


def test_log_prints_false_keeps_prints_out(burst, task_log, capsys):
    """With `log_prints=False` prints go to the flow's own output, and log records to the log."""
    (task_run_id,) = burst(futures_of, quiet, None)
    texts = [text for _, text in task_log(task_run_id)]
    assert "this is" in texts
    assert "this is not for the log" not in texts
    assert "this is not for the log" in capsys.readouterr().out


def test_the_last_words_of_a_body_that_dies(burst, task_log):
    """What a body wrote before it killed its own process is in the log."""

    @task
    def die():
        import os

        print("about to die", flush=True)
        os.kill(os.getpid(), 9)

    (task_run_id,) = burst(futures_of, die, None)
    assert "about to die" in [text for _, text in task_log(task_run_id)]
