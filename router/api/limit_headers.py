def render(buckets, backlogs):
    return ()
