//! Service level objectives: OpenSLO, indicators, error budgets and burn rates. Pure maths over
//! exact counts.
