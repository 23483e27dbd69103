"""A simulated world with a known answer. Nothing here knows of models.

Everything is drawn from one seed. Not a model of people: its use is that nothing in it is unknown.
Numbers are those of `pipelines.sources.world.draws`; s(x) = 1 / (1 + exp(-x)).

    topics    K unit centres m_k in the embedding space; popularity g_k(day): two slow sines
    pins      topic z; embedding unit(m_z + 0.8 noise); appeal ~ N(0, 0.3)
    users     taste t: 3 to 5 topics, Dirichlet(4); warmth ~ N(0, 0.4); weekly row
              unit(unit(sum_k t_k m_k) + 0.5 noise); three users in ten arrive later
    sessions  Poisson, 3 a week on average, gamma distributed over users; 2 to 6 requests, 2 to 10
              minutes apart
    intent    one topic, first drawn from t; at each request it stays with chance 0.95 within a
              session and 0.95 (exp(-gap / 12 h) + exp(-gap / 7 d)) / 2 after a gap, or is drawn
              from t again (and may be the same)
    dislike   one topic outside the taste; stays with chance exp(-gap / 21 d), or is drawn again
    shown     12 different pins, each from the taste (0.4), from the topics popular that day (0.3,
              by exp(g)) or any pin (0.3). `exploration_share` of the requests show uniform pins:
              is_exploration, with propensity = chance that the pin is among them = 12 / pins
    seen      position j, from 0, is looked at with chance e_j = 0.95^j
    repin     q_repin = s(-4.2 + 3.4 [z = intent] + 2 t_z - 2 [z = dislike]
                          + appeal + 0.4 g_z + warmth)
    hide      q_hide  = s(-5.5 + 4 [z = dislike])
    click     q_click = s(-3.2 + 2 [z = intent] + t_z + appeal + 0.4 g_z)
              one outcome at most, in this order of precedence: see `draws`; `trend` is the 0.4
    known_at  up to 2 minutes later, in 4 % of the cases up to two days

With `like` production the log has what the recipe `production` reads: its action types, and its
embedding version `pinsage-1`. Repins, clicks and hides have the chances above; besides there are

    closeup     q_closeup = s(-2.4 + 1.5 [z = intent] + t_z + appeal + 0.4 g_z) of a pin that is
                looked at and gets no repin, hide or click; also before every second repin
    long_click  after a click with chance s(-0.8 + 1.2 [z = intent])

With `pin_lifetime_days` L a pin is born at some time, is shown for 4 L days, and fades:

    born      evenly over the days of the log and the 4 L days before them, in the order of the
              pin_ids; the table pins tells when: created_at, int64 milliseconds
    shown     as above, but of the pins that are born and at most 4 L days old; the propensity is
              12 / how many these are
    appeal    (3 + appeal) 2^(-age / L) stands in the place of appeal

Neither the times of requests nor the candidates depend on intent and dislike, so they tell nothing
about them; only outcomes do.
"""
