"""Processes of a `tf.distribute` strategy: whether there are several, and which of them writes files."""


def across_workers(strategy):
    """Whether the strategy spans several processes."""
    return worker_count(strategy) > 1


def worker_count(strategy):
    """How many processes train."""
    resolver = strategy.cluster_resolver
    return 1 if resolver is None else max(1, len(_workers(resolver)))


def is_chief(strategy):
    """Whether this process is the one that writes files: the chief, or worker 0 in a cluster without one."""
    if not across_workers(strategy):
        return True
    resolver = strategy.cluster_resolver
    return (resolver.task_type, resolver.task_id) == _workers(resolver)[0]


def own_task(strategy):
    """(type, id) of this process."""
    return strategy.cluster_resolver.task_type, strategy.cluster_resolver.task_id


def tasks(strategy):
    """Those of all processes that train, the chief's first."""
    return _workers(strategy.cluster_resolver)


def _workers(resolver):
    """The tasks that train, as (type, id), the chief first."""
    jobs = resolver.cluster_spec().as_dict()
    return [(job, task) for job in ("chief", "worker") for task in range(len(jobs.get(job, [])))]
