"""A deliberately naive model of masked aggregation, with published weaknesses, and the attacks they allow."""
