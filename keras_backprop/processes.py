"""Processes of a `tf.distribute` strategy: whether there are several, and which of them writes files."""


def across_workers(strategy):
    """Whether the strategy spans several processes."""
    resolver = strategy.cluster_resolver
    return resolver is not None and len(_workers(resolver)) > 1


def is_chief(strategy):
    """Whether this process is the one that writes files: the chief, or worker 0 in a cluster without one."""
    if not across_workers(strategy):
        return True
    resolver = strategy.cluster_resolver
    return (resolver.task_type, resolver.task_id) == _workers(resolver)[0]


def _workers(resolver):
    """The tasks that train, as (type, id), the chief first."""
    jobs = resolver.cluster_spec().as_dict()
    return [(job, task) for job in ("chief", "worker") for task in range(len(jobs.get(job, [])))]
