"""Runs a plan and gives its result."""

from __future__ import annotations

import time

from stoker.load.driver import BUILD, Driver, Unreachable
from stoker.load.idle import Idle, hold
from stoker.load.open import establish, make_driver, need_descriptors
from stoker.load.plan import Plan, resolve
from stoker.load.result import Latency, Result


def run(plan: Plan) -> Result:
    """Run a plan to its end, in this thread. A KeyboardInterrupt ends it early, and what was measured is given.

    Raises ConfigError for a target that is not on this machine and for more connections than there may be
    descriptors, Unreachable when no connection can be made, IdleError when those to be held idle cannot.
    """
    need_descriptors(plan.connections + plan.idle)
    target = resolve(plan.url, plan.connections, plan.close)
    driver = make_driver(plan, target)
    idle = Idle()
    interrupted = False
    try:
        try:
            if plan.idle:
                hold(idle, plan, plan.idle)
            if not plan.close:
                establish(driver, target, plan.connections, plan.timeout)
            driver.drive(time.thread_time)
        except OSError as error:
            raise Unreachable(f"{plan.url}: {error.strerror or error}") from None
        except Unreachable as error:
            raise Unreachable(f"{plan.url}: {error}") from None
        except KeyboardInterrupt:
            interrupted = True
            driver.stop()
        return summary(plan, driver, idle, interrupted)
    finally:
        driver.release()
        idle.close()


def summary(plan: Plan, driver: Driver, idle: Idle, interrupted: bool) -> Result:
    """What a driver has measured."""
    end = driver.answered_at
    if interrupted or not driver.requests:
        end = driver.moment
    elif not plan.requests:
        end = max(end, driver.end)
    return Result(
        url=plan.url,
        mode=plan.mode,
        connections=plan.connections,
        opened=driver.opened,
        seconds=max(end - driver.counted, 0) / 1e9,
        requests=driver.requests,
        bytes=driver.received,
        warm_up=driver.warmed,
        late=driver.late,
        unsent=driver.unsent,
        errors=driver.failures | {"status": driver.wrong_status, "body": driver.wrong_body},
        details=driver.all_details(),
        latency=Latency.of(driver.histogram),
        idle=len(idle),
        idle_closed=idle.closed(),
        build=BUILD,
        cpu_seconds=max(time.thread_time() - driver.cpu, 0.0),
        interrupted=interrupted,
        histogram=driver.histogram,
    )
