// Ranks that follow Zipf's law.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace bench {

// Draws ranks from 1 to n, rank k with a probability in proportion to k^-0.99, in constant time and
// without a table: rejection-inversion, by W. Hörmann and G. Derflinger, "Rejection-inversion to
// generate variates from monotone discrete distributions" (1996).
class Zipf {
  public:
    explicit Zipf(std::uint64_t n)
        : n_(static_cast<double>(n)),
          low_(integral(1.5) - 1),
          high_(integral(n_ + 0.5)),
          step_(2 - inverse(integral(2.5) - density(2))) {}

    // `uniform` gives numbers from 0 to 1.
    template <class Uniform>
    std::uint64_t operator()(Uniform& uniform) const {
        while (true) {
            const double u = high_ + uniform() * (low_ - high_);
            const double x = inverse(u);
            const double k = std::clamp(std::floor(x + 0.5), 1.0, n_);
            if (k - x <= step_ || u >= integral(k + 0.5) - density(k)) {
                return static_cast<std::uint64_t>(k);
            }
        }
    }

  private:
    static constexpr double kExponent = 0.99;

    static double density(double x) { return std::pow(x, -kExponent); }
    static double integral(double x) { return (std::pow(x, 1 - kExponent) - 1) / (1 - kExponent); }
    static double inverse(double x) {
        return std::pow(1 + x * (1 - kExponent), 1 / (1 - kExponent));
    }

    double n_;
    double low_;
    double high_;
    double step_;
};

}  // namespace bench
